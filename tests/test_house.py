"""Rules of the house that a machine can hold: who may import whom, how long a file may be, what must be documented."""

import ast
import re
import sys
from inspect import cleandoc
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lmms_ca_plugin"
FILES = sorted(PACKAGE.rglob("*.py"))
LONGEST = 300

# Rooms that any other may import, because they import nothing of the package themselves but each other.
SMALL = {"errors", "options", "discovery", "devices", "layer_profile", "atomic", "checkpoints"}
# Room -> the other rooms that it may import; `cli`, which ties all together, is not listed.
ROOMS = {
    **dict.fromkeys(SMALL, ()),
    "attention": (),
    "scoring": (),
    "families": (),
    "results": ("scoring",),
    "figures": ("results",),
    "methods": ("families",),
    "engine": ("attention", "families", "methods"),
    "tiny": ("engine", "families", "methods", "results", "scoring"),
    "bench": ("engine", "families", "methods", "tiny"),
    "harness": ("engine", "families", "methods", "results", "tiny"),
    "studies": ("engine", "families", "figures", "harness", "methods", "results"),
}
# Room -> the packages that it may import; `harness` alone is not listed.
PACKAGES = {
    **dict.fromkeys(SMALL, ()),
    "devices": ("torch",),
    "attention": ("torch", "transformers"),
    "scoring": ("datasets", "evaluate"),
    "families": ("PIL", "jinja2", "torch", "transformers"),
    "results": ("numpy", "pandas", "pytest", "scipy"),
    "figures": ("matplotlib", "numpy", "pandas"),
    "methods": ("PIL", "numpy", "scipy", "torch", "transformers"),
    "engine": ("PIL", "huggingface_hub", "torch", "tqdm", "transformers"),
    "tiny": ("PIL", "datasets", "pyarrow", "safetensors", "tokenizers", "torch", "tqdm", "transformers"),
    "bench": ("PIL", "rich", "scipy", "torch", "tqdm", "transformers"),
    "studies": ("PIL", "matplotlib", "numpy", "pandas", "torch"),
    "cli": ("pandas", "rich", "torch", "typer"),
}


def imports(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "lmms_ca_plugin":
            yield from (f"lmms_ca_plugin.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_a_file_keeps_the_rules(file):
    assert len(file.read_text().splitlines()) <= LONGEST
    assert file.name != "utils.py"
    room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for module in imports(file):
        package, _, rest = module.partition(".")
        if package == "lmms_ca_plugin":
            other = rest.partition(".")[0]
            allowed = room == "cli" or other in {"", room, *SMALL, *ROOMS.get(room, ())}
        else:
            allowed = room == "harness" or package in {*sys.stdlib_module_names, *PACKAGES.get(room, ())}
        assert allowed, f"{room} must not import {module}"


def test_figures_leave_no_state_in_pyplot():
    assert not [file for file in FILES if "matplotlib.pyplot" in set(imports(file))]


def test_every_option_says_what_it_means():
    from lmms_ca_plugin.cli.models import attribute_docs
    from lmms_ca_plugin.engine.load import CheckpointOptions, InputOptions
    from lmms_ca_plugin.engine.requests import RunOptions
    from lmms_ca_plugin.methods import load_method, method_names
    from lmms_ca_plugin.options import option_types

    for cls in (RunOptions, CheckpointOptions, InputOptions, *map(load_method, method_names())):
        assert list(attribute_docs(cls)) == list(option_types(cls)), cls.__name__
        unindented = type("Unindented", (), {"__doc__": cleandoc(cls.__doc__)})  # as Python 3.13 keeps it
        assert attribute_docs(unindented) == attribute_docs(cls)


def test_every_skip_is_listed_with_its_reason():
    listed = (ROOT / "tests" / "SKIPS.md").read_text()
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        for reason in re.findall(r"skip(?:if)?\((?:.*?reason=)?\"(.+?)\"", file.read_text(), re.DOTALL):
            assert reason in listed, f"{file.name}: {reason}"
