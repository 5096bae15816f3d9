"""Opening a checkpoint: facts first, weights last, so that what can be refused is refused before they are read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, GenerationConfig, PretrainedConfig
from transformers.utils import GENERATION_CONFIG_NAME, cached_file

from lmms_ca_plugin.attention import KernelName
from lmms_ca_plugin.checkpoints import bundled
from lmms_ca_plugin.devices import device_named
from lmms_ca_plugin.errors import CheckpointError, OptionError, nearest
from lmms_ca_plugin.families import load_family
from lmms_ca_plugin.families._contract import Family, Trunk
from lmms_ca_plugin.families._contract import InputOptions as InputOptions  # given beside a checkpoint's own

Dtype = Literal["auto", "float32", "float64", "bfloat16", "float16"]

# Settings of `generate` that change what a token is taken by, with the value beside None that changes nothing.
_ON_SCORES: dict[str, float | None] = {
    **dict.fromkeys(("encoder_repetition_penalty", "guidance_scale"), 1),
    **dict.fromkeys(("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "min_length", "min_new_tokens"), 0),
    **dict.fromkeys(("bad_words_ids", "sequence_bias", "suppress_tokens", "begin_suppress_tokens")),
    **dict.fromkeys(("forced_bos_token_id", "forced_eos_token_id", "exponential_decay_length_penalty")),
}


@dataclass(frozen=True)
class CheckpointOptions:
    """Which checkpoint, and where and how it is held.

    Attributes:
        pretrained: A hub id, a local folder, or the name of a bundled checkpoint (`mini`).
        revision: A branch, tag or commit of the hub repository.
        device: E.g. `cuda:1` or `cpu`; None is this process's GPU, or the CPU where there is none.
        device_map: How transformers spreads the weights, e.g. `auto`; None puts all on `device`.
        dtype: `auto` is the checkpoint's own on a GPU and float32 on a CPU.
        attn_implementation: The attention kernel under the seam.
        trust_remote_code: Whether code from the hub repository may run.
    """

    pretrained: str = "llava-hf/llava-1.5-7b-hf"
    revision: str | None = None
    device: str | None = None
    device_map: str | None = None
    dtype: Dtype = "auto"
    attn_implementation: KernelName = "sdpa"
    trust_remote_code: bool = False

    @property
    def source(self) -> str:
        """What transformers reads: the hub id or the folder."""
        return str(bundled().get(self.pretrained, self.pretrained))


@dataclass(frozen=True)
class Checkpoint:
    """What is known of a checkpoint before its weights are read."""

    options: CheckpointOptions
    family: type[Family]
    trunk: Trunk
    device: torch.device
    config: Any


def describe(options: CheckpointOptions) -> Checkpoint:
    """Reads a checkpoint's config.

    Args:
        options: Which checkpoint.

    Returns:
        Its family and its trunk's facts.

    Raises:
        CheckpointError: No such folder, no readable config, or an unsupported form or type.
        OptionError: A device that is not there, one beside a device map, or a 16-bit dtype on a CPU that does not
            compute in it.
    """
    folder = Path(options.source).expanduser()
    if (folder.is_absolute() or options.source.startswith((".", "~"))) and not folder.is_dir():
        raise CheckpointError(f"pretrained={options.pretrained}: there is no such folder. Give a folder or a hub id.")
    if folder.is_dir() and not (folder / "config.json").is_file():
        adapter = (folder / "adapter_config.json").is_file()
        raise CheckpointError(
            f"pretrained={options.pretrained}: the folder has no config.json, so it is no checkpoint."
            f"{' It holds an adapter: merge that into its base and save the whole, processor included.' * adapter}"
        )
    device = _device(options)
    if device.type == "cpu" and options.dtype in _slow_on_cpu():
        raise OptionError(
            f"dtype={options.dtype} on this CPU is hundreds of times slower than float32. Allowed: float32, float64, "
            "and bfloat16 on a CPU with AVX512-BF16 or AMX."
        )
    written = _read("config", _written_config, options)
    if "mm_vision_tower" in written:
        raise CheckpointError(
            f"pretrained={options.pretrained}: its config is of LLaVA's original code, which names weights otherwise "
            "and has no processor. Give a checkpoint in transformers' form, e.g. llava-hf/llava-1.5-7b-hf; the "
            "repository of transformers has scripts that convert one: models/llava/convert_llava_weights_to_hf.py, and "
            "its like in models/llava_next."
        )
    # Of a type that it does not know, transformers says that it should be updated.
    family = load_family(str(written.get("model_type")))
    config = _read("config", AutoConfig.from_pretrained, options)
    return Checkpoint(options, family, family.describe(config), device, config)


def load(checkpoint: Checkpoint, inputs: InputOptions) -> Family:
    """Reads processor and weights.

    Args:
        checkpoint: What `describe` found.
        inputs: How prompts and pictures are prepared.

    Returns:
        The family, ready for the engine.

    Raises:
        CheckpointError: The processor or the weights are missing, incomplete or do not belong together, or `generate`
            would change tokens' scores otherwise than by a repetition penalty.
        OptionError: An input option has no meaning for this family.
    """
    options = checkpoint.options
    processor = _read("processor", AutoProcessor.from_pretrained, options)
    if not hasattr(processor, "image_processor") or not hasattr(processor, "tokenizer"):
        raise CheckpointError(
            f"pretrained={options.pretrained}: its processor is a {type(processor).__name__} that takes no pictures. A "
            "processor_config.json or preprocessor_config.json is missing."
        )
    checkpoint.family.fit(processor, checkpoint.config, checkpoint.trunk, inputs)
    _check_generation(
        options, _read("generation settings", _generation_config, options, without_file=checkpoint.config)
    )
    dtype = ("float32" if checkpoint.device.type == "cpu" else "auto") if options.dtype == "auto" else options.dtype
    model, info = _read(
        "weights",
        AutoModelForImageTextToText.from_pretrained,
        options,
        dtype=dtype if dtype == "auto" else getattr(torch, dtype),
        attn_implementation=options.attn_implementation,
        device_map=options.device_map or _straight_to(checkpoint.device),
        output_loading_info=True,
    )
    absent = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
    if absent:
        # transformers only warns, and fills what is missing with random numbers.
        raise CheckpointError(
            f"pretrained={options.pretrained}: {len(absent)} weights are missing or of another shape, first "
            f"{absent[0]}. The checkpoint is incomplete, or its config does not fit it."
        )
    return checkpoint.family(model.eval(), processor, inputs)


def _written_config(source: str, revision: str | None, **_: Any) -> dict[str, Any]:
    """What config.json says, before any class makes something of it."""
    return dict(PretrainedConfig.get_config_dict(source, revision=revision)[0])


def _generation_config(source: str, revision: str | None, without_file: Any, **_: Any) -> GenerationConfig:
    """What `generate` goes by, as the model will have it: the file's, or where there is none, its config's."""
    file = cached_file(source, GENERATION_CONFIG_NAME, revision=revision, _raise_exceptions_for_missing_entries=False)
    if file is None:
        return GenerationConfig.from_model_config(without_file)
    return GenerationConfig.from_pretrained(Path(file).parent)


def _check_generation(options: CheckpointOptions, config: GenerationConfig) -> None:
    """Refuses what `generate` would do to the scores of each token and this engine does not, whatever the method."""
    penalty = getattr(config, "repetition_penalty", None)
    if penalty is not None and not penalty > 0:
        raise CheckpointError(
            f"pretrained={options.pretrained}: its generation_config.json has repetition_penalty={penalty}. Allowed: "
            "above 0; 1 changes nothing."
        )
    values = {name: getattr(config, name, None) for name in _ON_SCORES}
    asked = {name: value for name, value in values.items() if value not in (None, _ON_SCORES[name])}
    if asked:
        raise CheckpointError(
            f"pretrained={options.pretrained}: its generation_config.json asks for "
            f"{', '.join(f'{name}={value}' for name, value in asked.items())}, which changes tokens' scores and is not "
            "done here. Take it out of a local copy's file."
        )


def _straight_to(device: torch.device) -> dict[str, str] | None:
    """A map of everything to one GPU; None for the CPU."""
    # Read onto the CPU first, weights would take as much memory there, in each of the processes that share a machine.
    return None if device.type == "cpu" else {"": str(device)}


def _slow_on_cpu() -> tuple[Dtype, ...]:
    in_bfloat16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return ("float16",) if in_bfloat16 else ("float16", "bfloat16")


def _device(options: CheckpointOptions) -> torch.device:
    if options.device is not None and options.device_map is not None:
        raise OptionError(
            f"device={options.device} and device_map={options.device_map} both say where the weights go. Give one."
        )
    if options.device is not None:
        return device_named(options.device)
    if options.device_map == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")


def _read(what: str, reader: Any, options: CheckpointOptions, **more: Any) -> Any:
    try:
        return reader(options.source, revision=options.revision, trust_remote_code=options.trust_remote_code, **more)
    except (OSError, ValueError, ImportError, RuntimeError, AttributeError, TypeError, KeyError) as error:
        # The last three: files of a transformers release that this one does not understand.
        raise CheckpointError(
            f"pretrained={options.pretrained}: its {what} cannot be read: {error}\n"
            "Give a local folder, or a hub id that is cached here or can be reached from here."
            f"{nearest(options.pretrained, bundled())}"
        ) from error
