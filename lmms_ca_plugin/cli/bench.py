"""`lmms-ca bench`: what things cost, measured here."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lmms_ca_plugin.cli._shared import open_console
from lmms_ca_plugin.options import names_in

if TYPE_CHECKING:
    from lmms_ca_plugin.families._contract import Family

app = typer.Typer(no_args_is_help=True)

Device = Annotated[str, typer.Option(help="cpu (114 million parameters), or cuda (the 7B shape, bfloat16).")]
Tokens = Annotated[int, typer.Option(help="Tokens that every answer has.")]
Together = Annotated[int, typer.Option(help="Questions answered together.")]
Seed = Annotated[int, typer.Option(help="Seed of weights, questions and order.")]
Threads = Annotated[int | None, typer.Option(min=1, help="PyTorch's threads on a CPU; its own choice without.")]
Json = Annotated[Path | None, typer.Option(help="Also write everything that was measured to this file.")]
Shown = tuple[dict[str, Any], list[Any]]  # what goes into the file, and what is printed


@app.callback()
def bench() -> None:
    """Measure what methods and studies cost, and how fast vanilla answers."""


@app.command()
def methods(
    device: Device = "cpu",
    pairs: Annotated[int, typer.Option(help="Timed pairs per method; below 9 no time is judged.")] = 21,
    batch_size: Together = 1,
    new_tokens: Tokens = 4,
    methods: Annotated[str | None, typer.Option(help="Joined by commas; all without it.")] = None,
    seed: Seed = 0,
    threads: Threads = None,
    json: Json = None,
) -> None:
    """Measure each method's wall time and peak memory relative to vanilla, on a model with random weights."""
    from lmms_ca_plugin.bench.methods import BenchOptions, measure
    from lmms_ca_plugin.bench.report import as_table, of_methods, remarks

    options = BenchOptions(None if methods is None else names_in(methods), pairs, batch_size, new_tokens, seed)

    def run(family: Family) -> Shown:
        costs = measure(family, options)
        return of_methods(costs), [as_table(costs, options), *remarks(costs)]

    _bench("methods", run, options, device, threads, json)


@app.command()
def throughput(
    device: Device = "cpu",
    pairs: Annotated[int, typer.Option(help="Timed pairs per side; below 9 nothing is judged.")] = 9,
    batch_sizes: Annotated[
        str | None, typer.Option(help="Vanilla's, joined by commas; 1,2,4 on a CPU and 1,8,32 on a GPU without it.")
    ] = None,
    questions: Annotated[
        int | None, typer.Option(help="Per timed run; two batches of the largest size without it.")
    ] = None,
    new_tokens: Annotated[
        int | None,
        typer.Option(help="Tokens per answer, each side the same number; 4 on a CPU and 16 on a GPU without it."),
    ] = None,
    against: Annotated[
        Literal["llava_hf", "generate"] | None,
        typer.Option(help="The harness's own entry, or processor and generate; llava_hf where the harness is found."),
    ] = None,
    seed: Seed = 0,
    threads: Threads = None,
    json: Json = None,
) -> None:
    """Measure vanilla's throughput and memory against the harness's llava_hf and transformers' generate."""
    from importlib.util import find_spec

    from lmms_ca_plugin.bench.report_runs import claims_table, of_throughput, throughput_table
    from lmms_ca_plugin.bench.throughput import Peer, ThroughputOptions, measure
    from lmms_ca_plugin.engine.generation import Generation
    from lmms_ca_plugin.errors import OptionError

    # A GPU gains by batches in decoding, far more than in the prompt's pass: as many tokens as a task without a number.
    default_sizes, default_tokens = ("1,2,4", 4) if device == "cpu" else ("1,8,32", Generation.max_new_tokens)
    sizes = _numbers("batch_sizes", batch_sizes or default_sizes)
    asked = 2 * max(sizes) if questions is None else questions
    options = ThroughputOptions(sizes, asked, pairs, default_tokens if new_tokens is None else new_tokens, seed)
    found = find_spec("lmms_eval") is not None
    if against == "llava_hf" and not found:
        raise OptionError("against=llava_hf needs lmms-eval, which is not installed. Take generate, or leave it out.")
    peer: Peer | None = None
    if found and against != "generate":
        from lmms_ca_plugin.harness.peer import LlavaHf

        peer = LlavaHf

    def run(family: Family) -> Shown:
        speeds = measure(family, options, peer)
        return of_throughput(speeds), [throughput_table(speeds), claims_table(speeds.claims)]

    _bench("throughput", run, options, device, threads, json)


@app.command()
def studies(
    device: Device = "cpu",
    pairs: Annotated[int, typer.Option(help="Timed pairs per study; below 9 nothing is judged.")] = 9,
    batch_size: Together = 2,
    new_tokens: Tokens = 4,
    studies: Annotated[
        str, typer.Option(help="Joined by commas: masking (Table 3 and Figure 7), layers (the layer sweep).")
    ] = "masking,layers",
    seed: Seed = 0,
    threads: Threads = None,
    json: Json = None,
) -> None:
    """Measure the paper's masking studies as branches of one pass, against vanilla or their variants one by one."""
    from lmms_ca_plugin.bench.report_runs import claims_table, of_studies, studies_remarks, studies_table
    from lmms_ca_plugin.bench.studies import StudiesOptions, measure

    options = StudiesOptions(names_in(studies), pairs, batch_size, new_tokens, seed)

    def run(family: Family) -> Shown:
        costs = measure(family, options)
        claims = claims_table([claim for cost in costs for claim in cost.claims])
        return of_studies(costs), [studies_table(costs), *studies_remarks(costs), claims]

    _bench("studies", run, options, device, threads, json)


def _bench(
    name: str, run: Callable[[Family], Shown], options: Any, device: str, threads: int | None, json: Path | None
) -> None:
    """Builds the model, measures, prints and writes."""
    from json import dumps

    import torch

    from lmms_ca_plugin.atomic import write_atomically
    from lmms_ca_plugin.bench.models import build_family
    from lmms_ca_plugin.bench.report import Machine, as_record
    from lmms_ca_plugin.errors import InputError

    if json is not None and not json.parent.is_dir():
        raise InputError(f"json={json}: there is no folder {json.parent}. Make it first.")
    if threads is not None:
        torch.set_num_threads(threads)
    start = time.perf_counter()
    console = open_console()
    with console.status("Building the model"):
        family = build_family(device, options.seed)
    machine = Machine.now(family.model.device)
    measured, shown = run(family)
    seconds = time.perf_counter() - start
    for what in shown:
        console.print(what, style="dim" if isinstance(what, str) else None, highlight=False)
    if json is not None:
        record = as_record(name, measured, family, options, machine, seconds)
        write_atomically(json, dumps(record, indent=1) + "\n")
        console.print(f"Everything that was measured: {json}", soft_wrap=True)


def _numbers(option: str, joined: str) -> tuple[int, ...]:
    from lmms_ca_plugin.errors import OptionError

    names = names_in(joined)
    if not all(name.isdecimal() for name in names):
        raise OptionError(f"{option}={joined} is not allowed. Allowed: whole numbers joined by commas, e.g. 1,2,4.")
    return tuple(map(int, names))
