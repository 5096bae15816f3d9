"""What a results file says of the run: checkpoint, method, versions, cost, and the command that repeats it.

Our own entries leave a full record (`config.batch_sizes[0]`, the only place where the harness keeps something of the
model's own). Of other entries only what the harness itself writes is known; the rest stays empty.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lmms_ca_plugin.options import spell, split_args

# What every method of a comparison must be asked with alike; part of what is computed, and no method's own.
_INPUTS = ("conversation", "image_aspect_ratio", "max_pixels")
# Options that say where and how a run is carried out; the others say what is computed and belong to its identity.
_CARRIED_OUT = frozenset(
    {"pretrained", "revision", "device", "device_map", "dtype", "attn_implementation", "trust_remote_code"}
    | {"batch_size", "seed", "trace", "save_crops", "use_cache"}
)
# Arguments of the harness's command that change what is computed, or of what.
_TYPED = (
    *("model", "model_args", "tasks", "batch_size", "limit", "offset", "gen_kwargs", "num_fewshot"),
    *("system_instruction", "repeats", "seed"),
)
# What the harness writes where nothing was typed.
_UNTYPED = {"seed": [0, 1234, 1234, 1234], "repeats": 1}
_DATE = re.compile(r"(\d{4})(\d\d)(\d\d)_(\d\d)(\d\d)(\d\d)")


@dataclass(frozen=True)
class Provenance:
    """Where a run's scores come from. Empty text and None mean: not known.

    `inputs` holds how every question was asked and every answer taken, whatever the method, as far as it is known.
    """

    model: str
    revision: str
    method: str
    method_args: str
    entry: str
    seconds: float | None
    samples_per_second: float | None
    peak_memory_gib: float | None
    batch_size: str
    dtype: str
    device: str
    seed: str
    lmms_eval: str
    transformers: str
    torch: str
    plugin: str
    commit: str
    date: str
    command: str
    inputs: Mapping[str, str] = field(default_factory=dict)

    def asked_otherwise(self, other: Provenance) -> list[str]:
        """Lists the inputs in which two runs are known to differ."""
        mine, its = self.inputs, other.inputs
        return sorted(name for name in mine.keys() & its.keys() if mine[name] != its[name])


def _command(cli: Mapping[str, Any]) -> str:
    """Writes the harness command with the arguments that change what is computed."""
    words = ["lmms-eval"]
    for name in _TYPED:
        value = cli.get(name)
        if value == _UNTYPED.get(name):
            continue
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # the harness reads --limit 6 as 6.0
        if value not in (None, "", 0):
            words += [f"--{name}", ",".join(map(str, value)) if isinstance(value, list) else str(value)]
    words += ["--force_simple"] if cli.get("force_simple") else []
    told = shlex.join([*words, "--log_samples"])
    seed = cli.get("subset_seed")
    return (
        told if seed is None else f"{told}  # in a study, on the subset of seed {seed}: --limit takes other documents"
    )


def own_record(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Finds our own entry's record; empty for other entries."""
    logged = config.get("batch_sizes")
    first = logged[0] if isinstance(logged, list) and logged else None
    return first if isinstance(first, dict) and "entry" in first else {}


def _cost(record: Mapping[str, Any], results: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Seconds spent answering all tasks of the run, and samples per second."""
    seconds, samples = record.get("seconds"), record.get("samples")
    if not record:
        seconds = (results.get("throughput") or {}).get("total_elapsed_time")
        samples = sum(counts["effective"] for counts in results["n-samples"].values())
    return seconds, samples / seconds if samples and seconds else None


def provenance(results: Mapping[str, Any]) -> Provenance:
    """Reads a run's provenance.

    Args:
        results: The content of a results file.

    Returns:
        What is known. `revision` is the checkpoint's, `commit` that of the git repository the harness ran in.
    """
    config = results["config"]
    record, typed = own_record(config), split_args(config.get("model_args") or "")
    args = {key: value for key, value in typed.items() if key not in _CARRIED_OUT}
    args |= {key: spell(value) for key, value in (record.get("parameters") or {}).items() if value is not None}
    inputs = {name: str(record[name]) for name in _INPUTS if record.get(name)}
    if config.get("gen_kwargs"):
        inputs["gen_kwargs"] = str(config["gen_kwargs"])
    if config.get("system_instruction"):
        inputs["system_instruction"] = json.dumps(config["system_instruction"], ensure_ascii=False)
    dtype = str(record.get("dtype") or typed.get("dtype", ""))
    seconds, rate = _cost(record, results)
    versions = record.get("versions", {})
    date = _DATE.fullmatch(str(results["date"]))
    return Provenance(
        model=typed.get("pretrained") or record.get("pretrained") or results.get("model_name") or config["model"],
        revision=typed.get("revision") or record.get("revision") or record.get("commit") or "",
        method=record.get("entry") or config["model"],
        method_args=",".join(f"{key}={value}" for key, value in sorted((args | inputs).items())),
        inputs={"gen_kwargs": "", "system_instruction": "", **inputs} | ({"dtype": dtype} if dtype else {}),
        entry=config["model"],
        seconds=seconds,
        samples_per_second=rate,
        peak_memory_gib=record.get("peak_memory_gib"),
        batch_size=str(record.get("batch_size") or config.get("batch_size") or ""),
        dtype=dtype,
        device=record.get("device") or config.get("device") or "",
        seed=str(record.get("seed", config.get("random_seed", ""))),
        lmms_eval=versions.get("lmms_eval", ""),
        transformers=versions.get("transformers") or str(results.get("transformers_version") or ""),
        torch=versions.get("torch", ""),
        plugin=versions.get("plugin", ""),
        commit=str(results.get("git_hash") or ""),
        date="{}-{}-{}T{}:{}:{}".format(*date.groups()) if date else str(results["date"]),
        command=_command(config.get("resolved_cli_args") or {"model": config["model"], **config}),
    )
