"""`lmms-ca offline-suite DIR`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich import print


def offline_suite(
    folder: Annotated[Path, typer.Argument(help="Where to write; must be new, empty or an earlier suite.")],
    seed: Annotated[int, typer.Option(help="Seed of the weights and of the rendered pages.")] = 0,
) -> None:
    """Write two small random checkpoints and six data sets with which lmms-eval's tasks run without a network."""
    from lmms_ca_plugin.harness.offline import write_suite

    suite = write_suite(folder, seed=seed)
    print(f"Wrote {suite.folder}. Run from inside it, e.g.:\n")
    variables = " ".join(f"{name}={value}" for name, value in suite.environment.items())
    command = f"lmms-eval --model llava_contrastive --model_args pretrained={suite.llava} --tasks gqa,textvqa_val"
    typer.echo(f"cd {suite.folder}\nenv {variables} \\\n  {command} --batch_size 8 --output_path results --log_samples")
