"""Rules of the house that a machine can hold: who may import whom, how long a file may be, what must be documented."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lmms_ca_plugin"
FILES = sorted(PACKAGE.rglob("*.py"))
LONGEST = 300

# Room -> what it must not import, by the start of the module's name.
FORBIDDEN = {
    "errors.py": ("torch", "transformers", "lmms_eval", "pandas", "lmms_ca_plugin"),
    "options.py": ("torch", "transformers", "lmms_eval", "pandas"),
    "layer_profile.py": ("torch", "transformers", "lmms_eval", "pandas", "lmms_ca_plugin.results"),
    "scoring": ("torch", "transformers", "lmms_eval", "pandas", "lmms_ca_plugin.results", "lmms_ca_plugin.engine"),
    "results": ("torch", "transformers", "lmms_eval", "lmms_ca_plugin.engine", "lmms_ca_plugin.harness"),
    "attention.py": (
        "lmms_eval",
        "datasets",
        "lmms_ca_plugin.families",
        "lmms_ca_plugin.methods",
        "lmms_ca_plugin.engine",
    ),
    "families": ("lmms_eval", "datasets", "evaluate", "lmms_ca_plugin.methods", "lmms_ca_plugin.engine"),
    "methods": ("lmms_eval", "datasets", "evaluate", "lmms_ca_plugin.engine", "lmms_ca_plugin.harness"),
    "engine": ("lmms_eval", "datasets", "evaluate", "lmms_ca_plugin.harness", "lmms_ca_plugin.cli"),
    "figures": (
        *("torch", "transformers", "lmms_eval", "datasets", "matplotlib.pyplot", "lmms_ca_plugin.families"),
        *("lmms_ca_plugin.methods", "lmms_ca_plugin.engine", "lmms_ca_plugin.studies", "lmms_ca_plugin.cli"),
    ),
    "studies": ("lmms_eval", "lmms_ca_plugin.cli"),
    "bench": (
        *("lmms_eval", "datasets", "evaluate", "lmms_ca_plugin.harness", "lmms_ca_plugin.studies"),
        "lmms_ca_plugin.cli",
    ),
    "tiny": ("lmms_eval", "lmms_ca_plugin.harness", "lmms_ca_plugin.cli"),
    "cli": ("lmms_eval",),
}


def imports(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_a_file_keeps_the_rules(file):
    assert len(file.read_text().splitlines()) <= LONGEST
    assert file.name != "utils.py"
    room = file.relative_to(PACKAGE).parts[0]
    for module in imports(file):
        for forbidden in FORBIDDEN.get(room, ()):
            assert module != forbidden and not module.startswith(forbidden + "."), f"{room} must not import {module}"


def test_the_harness_is_imported_in_its_folder_only():
    outside = [f for f in FILES if f.relative_to(PACKAGE).parts[0] != "harness"]
    assert not [f for f in outside if any(m.split(".")[0] == "lmms_eval" for m in imports(f))]


def test_every_option_says_what_it_means():
    from lmms_ca_plugin.cli.models import attribute_docs
    from lmms_ca_plugin.engine.load import CheckpointOptions, InputOptions
    from lmms_ca_plugin.engine.requests import RunOptions
    from lmms_ca_plugin.methods import load_method, method_names
    from lmms_ca_plugin.options import option_types

    for cls in (RunOptions, CheckpointOptions, InputOptions, *map(load_method, method_names())):
        assert list(attribute_docs(cls)) == list(option_types(cls)), cls.__name__


def test_every_skip_is_listed_with_its_reason():
    listed = (ROOT / "tests" / "SKIPS.md").read_text()
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        for reason in re.findall(r"skip(?:if)?\((?:.*?reason=)?\"(.+?)\"", file.read_text(), re.DOTALL):
            assert reason in listed, f"{file.name}: {reason}"
