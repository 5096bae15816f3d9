"""`lmms-ca audit`: the published tables' arithmetic, and where they disagree with themselves or the text."""

from __future__ import annotations

import dataclasses
import json as json_module
from typing import Annotated

import typer


def audit(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List what does not add up in the paper's tables and text: facts with cell names, no judgement."""
    from lmms_ca_plugin.results.audit import audit as findings

    found = findings()
    if json:
        print(json_module.dumps([dataclasses.asdict(finding) for finding in found], indent=2, ensure_ascii=False))
        return
    for kind in dict.fromkeys(finding.kind for finding in found):
        print(f"{kind}:")
        for finding in found:
            if finding.kind == kind:
                print(f"  {finding.where}: {finding.what}")
    print(f"{len(found)} findings")
