"""Every command in the README: our verbs with their options, the harness's with entries and tasks it knows."""

import re
import shlex
from pathlib import Path

import lmms_eval.tasks
import pytest
from lmms_eval.models import MODEL_REGISTRY_V2
from typer.main import get_command
from typer.testing import CliRunner

from lmms_ca_plugin.cli import build

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
LINES = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]
COMMANDS = [shlex.split(line.removeprefix("uv run "), comments=True) for line in LINES]


def test_the_two_commands_come_first():
    assert LINES[:2] == ["uv run lmms-ca quickstart", "uv run pytest"]


@pytest.mark.parametrize("command", [c for c in COMMANDS if c[0] == "lmms-ca"], ids=" ".join)
def test_our_commands_parse(command):
    """The parser takes the arguments; what the verb then does is tested with the verb."""
    verb, words = get_command(build()), command[1:]
    while hasattr(verb, "commands"):
        context = verb.make_context(verb.name, list(words))
        _, verb, words = verb.resolve_command(context, [*context._protected_args, *context.args])
    verb.make_context(verb.name, list(words))


@pytest.mark.parametrize("command", [c for c in COMMANDS if c[0] == "lmms-eval"], ids=" ".join)
def test_the_harnesss_commands_name_what_exists(command):
    given = dict(zip(command[1::2], command[2::2], strict=False))
    assert given["--model"] in MODEL_REGISTRY_V2.list_model_names()
    folders = [str(p) for p in Path(lmms_eval.tasks.__file__).parent.iterdir() if p.name in ("gqa", "textvqa")]
    ours = str(Path(__file__).parents[1] / "tasks")
    manager = lmms_eval.tasks.TaskManager("ERROR", include_path=[*folders, ours], include_defaults=False)
    assert set(given["--tasks"].split(",")) <= set(manager.all_tasks)


@pytest.mark.parametrize("command", ["audit", "power --difference 1 --flips 15", "models llava_contrastive"])
def test_commands_that_need_nothing_run(command):
    result = CliRunner().invoke(build(), shlex.split(command))
    assert result.exit_code == 0 and len(result.output.splitlines()) > 3


def test_the_file_map_is_the_tree():
    rooms = set(re.findall(r"^\| `lmms_ca_plugin/([\w.]+)/?`", README, re.MULTILINE))
    package = Path(__file__).parents[1] / "lmms_ca_plugin"
    folders = {p.name for p in package.iterdir() if p.is_dir() and not p.name.startswith(("_", "."))}
    assert folders <= rooms and all((package / room).exists() for room in rooms)
