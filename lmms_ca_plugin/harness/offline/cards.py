"""The README files of the suite: what it is, whose pictures it shows, and the `configs:` block `datasets` reads."""

from __future__ import annotations

from collections.abc import Iterable

from lmms_ca_plugin.harness.offline.pictures import Picture
from lmms_ca_plugin.harness.offline.tables import Table


def data_card(name: str, tables: list[Table]) -> str:
    """Writes the card of one data set.

    Args:
        name: Its name on the hub, without the organisation.
        tables: Its files.

    Returns:
        Markdown that begins with the YAML block that maps configurations and splits to files.
    """
    lines = ["---", "configs:"]
    for config in dict.fromkeys(table.config for table in tables):
        lines += [f"- config_name: {config}", "  data_files:"]
        for table in tables:
            if table.config == config:
                lines += [f"  - split: {table.split}", f"    path: {table.folder}/{table.split}-*"]
    lines += ["---", "", f"A stand-in for {name}: its columns, not its data. See the README of the suite.", ""]
    return "\n".join(lines)


def suite_card(pictures: Iterable[Picture], seed: int) -> str:
    """Writes the README of the suite, with the licence of every picture."""
    rows = [f"| {picture.name} | {picture.origin} | {picture.licence} |" for picture in pictures]
    return "\n".join(
        [
            "# Offline suite of lmms-ca",
            "",
            f"Two small checkpoints with random weights (seed {seed}) and six small data sets, with which lmms-eval's",
            "own tasks run without a network when this folder is the current directory.",
            "The weights are random and the questions few: scores mean nothing but that the software runs.",
            "Questions and answers were written by one author; ten equal answers are not ten people's.",
            "Run `lmms-eval` inside this folder, with the variables that `lmms-ca offline-suite` prints.",
            "",
            "# Pictures and their licences",
            "",
            "Copied on this machine from the installed packages. Document pages (DocVQA) are rendered by lmms-ca.",
            "",
            "| picture | from | licence |",
            "| --- | --- | --- |",
            *rows,
            "",
        ]
    )
