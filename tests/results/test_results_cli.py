"""The four verbs: what they print, their exit status, and the pytest plugin."""

import json
import sys
from importlib.metadata import entry_points
from pathlib import Path
from xml.etree import ElementTree

import pytest
from harness_files import flipped, task_samples, write_run
from typer.testing import CliRunner

from lmms_ca_plugin.cli import build
from lmms_ca_plugin.errors import InputError

pytest_plugins = ["pytester"]
DATA = Path(__file__).parent / "data"
BEFORE = [1.0] * 600 + [0.0] * 400
LOST = flipped(BEFORE, 0.1, 0.06, seed=2)

# the installed package brings the plugin along; naming it twice is an error of pytest's
INSTALLED = any(entry.value == "lmms_ca_plugin.results.pytest_plugin" for entry in entry_points(group="pytest11"))
PLUGIN = () if INSTALLED else ("-p", "lmms_ca_plugin.results.pytest_plugin")


def run(*args):
    return CliRunner().invoke(build(), [str(arg) for arg in args])


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, scores in (("base", BEFORE), ("cand", LOST), ("few", BEFORE[:10])):
        write_run(tmp_path / name, {"ca_textvqa": task_samples("ca_textvqa", scores)})
    return tmp_path


def test_leaderboard_writes_and_prints(runs):
    done = run("leaderboard", DATA / "ca", "-o", runs / "lb.csv", "--baseline", "toy2", "--wide", "markdown")
    assert done.exit_code == 0
    assert "| lab/toy | contrastive |" in done.stdout
    assert len((runs / "lb.csv").read_text().splitlines()) == 37
    assert run("leaderboard", DATA / "limit").stdout.startswith("model,revision,method,")
    for form, start in (("csv", "Model,Method,GQA"), ("latex", r"\begin{table}")):
        assert start in run("leaderboard", DATA / "ca", "--wide", form).stdout


def test_leaderboard_names_what_is_wrong(runs):
    done = run("leaderboard", runs / "nowhere", "-o", runs / "lb.csv")
    assert done.exit_code == 1
    assert "nowhere does not exist" in str(done.exception)
    assert not (runs / "lb.csv").exists()


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("folder", "output=folder is a folder. Give a file, e.g. folder/leaderboard.csv."),
        ("file/x.csv", "file/x.csv cannot be written: "),
        ("/proc/x.csv", "/proc/x.csv cannot be written: "),
    ],
)
def test_a_leaderboard_that_cannot_be_written_is_named(runs, output, message):
    (runs / "folder").mkdir()
    (runs / "file").write_text("a file")
    done = run("leaderboard", "base", "-o", output)
    assert isinstance(done.exception, InputError) and message in str(done.exception)


@pytest.mark.parametrize(
    ("args", "status", "text"),
    [
        (["base", "base"], 0, "ca_textvqa: same, +0.00 points"),
        (["base", "cand"], 1, "ca_textvqa: regressed, -"),
        (["cand", "base"], 0, "ca_textvqa: improved, +"),
        (["base", "cand", "--tolerance", "20"], 0, "ca_textvqa: same"),
        (["compare", "base", "cand"], 1, "ca_textvqa: regressed"),
        (["--tolerance", "0", "base", "cand"], 1, "ca_textvqa: regressed"),
        (["base", "few"], 2, "cannot compare: ca_textvqa: 10 documents are in common"),
        (["base", "nowhere"], 2, "nowhere is neither a run folder"),
        (["base", "cand", "--alpha", "2"], 2, "alpha is 2.0"),
        (["base", "cand", "--tasks", "ca_gqa"], 2, "Unknown task of the baseline 'ca_gqa'"),
        (["base", "cand", "--junit", "cand"], 2, "cannot compare: cand cannot be written: "),
        (["base", "few", "--junit", "cand"], 2, "cannot compare: ca_textvqa: 10 documents are in common"),
    ],
)
def test_exit_status(runs, args, status, text):
    done = run("regress", *args)
    assert done.exit_code == status, done.output
    assert text in done.output


def test_what_nobody_foresaw_is_no_regression(runs, monkeypatch):
    monkeypatch.setattr("lmms_ca_plugin.results.regression.load_side", lambda side: 1 / 0)
    done = run("regress", "base", "cand")
    assert done.exit_code == 2
    assert "ZeroDivisionError" in done.stderr


def test_regress_shows_flips_and_writes_files(runs):
    done = run("regress", "base", "cand", "--junit", "out/report.xml", "--flips", 2)
    assert done.output.count("'right' (100) -> 'wrong' (0)") == 2
    assert "more; --json lists all" in done.output
    assert ElementTree.parse(runs / "out" / "report.xml").getroot().attrib["failures"] == "1"
    content = json.loads(run("regress", "base", "cand", "--json").stdout)
    assert content["tasks"][0]["verdict"] == "regressed"
    assert "in common" in json.loads(run("regress", "base", "few", "--json").stdout)["error"]
    assert run("regress", "base", "few", "--junit", "error.xml").exit_code == 2
    assert ElementTree.parse(runs / "error.xml").getroot().attrib["errors"] == "1"


def test_keep_and_compare(runs):
    done = run("regress", "keep", "base", "v1")
    assert done.exit_code == 0
    assert "kept leaderboards/references/v1.json.gz" in done.output
    assert run("regress", "v1", "cand").exit_code == 1
    assert run("regress", "keep", "nowhere", "v2").exit_code == 2


def test_power(runs):
    done = run("power", "--difference", 3, "--flips", 15, "--power", 0.9)
    assert done.exit_code == 0
    # (1.960 + 1.282)^2 * (0.15 - 0.0009) / 0.0009
    assert "15 % flips: 1741 paired questions find 3 points with power 0.9" in done.output
    clustered = json.loads(run("power", "--cluster-size", 4, "--correlation", 0.2, "--json").stdout)
    plain = json.loads(run("power", "--json").stdout)
    key = "15 % flips"
    assert clustered["tasks"][key]["samples"] == pytest.approx(1.6 * plain["tasks"][key]["samples"], rel=1e-3)
    measured = run("power", "--baseline", "base", "--candidate", "cand")
    assert "ca_textvqa: " in measured.output
    with pytest.raises(InputError, match="--baseline and --candidate go together"):
        raise run("power", "--baseline", "base").exception
    with pytest.raises(InputError, match="flip"):
        raise run("power", "--difference", 20, "--flips", 5).exception


def test_power_of_a_loss_and_of_what_no_difference_can_be():
    loss, gain = (run("power", "--difference", points).output for points in (-3, 3))
    assert loss == gain and "find 3 points" in gain
    for points in ("nan", "200", "inf"):
        with pytest.raises(InputError, match=f"difference is {points} points; allowed is at most 100"):
            raise run("power", "--difference", points).exception


def test_power_of_runs_without_a_spread(runs):
    with pytest.raises(InputError, match="No answer changed from base to base, .*no spread was measured"):
        raise run("power", "--baseline", "base", "--candidate", "base").exception
    for side, scores in (("base", BEFORE), ("cand", LOST)):
        both = {"ca_gqa": task_samples("ca_gqa", BEFORE), "ca_textvqa": task_samples("ca_textvqa", scores)}
        write_run(runs / side, both)
    two = ("power", "--baseline", "base", "--candidate", "cand")
    lines = run(*two).output.splitlines()
    assert lines[0].startswith("ca_textvqa: ") and lines[-1].startswith("ca_gqa: no answer changed")
    assert json.loads(run(*two, "--json").stdout)["tasks"]["ca_gqa"] is None


def test_audit():
    done = run("audit")
    assert done.exit_code == 0
    assert "printed 67.00, mean of its cells 67.67" in done.output
    assert json.loads(run("audit", "--json").stdout)


@pytest.mark.parametrize(
    ("candidate", "outcome", "text"),
    [("base", {"passed": 1}, ""), ("cand", {"failed": 1}, "ca_textvqa: regressed")],
)
def test_pytest_runs_the_comparison(pytester, runs, candidate, outcome, text):
    done = pytester.runpytest_inprocess(
        *PLUGIN, "--ca-baseline", str(runs / "base"), "--ca-candidate", str(runs / candidate), "-v"
    )
    done.assert_outcomes(**outcome)
    done.stdout.fnmatch_lines(["*regress[[]ca_textvqa]*", f"*{text}*"])


def test_pytest_cannot_compare_is_a_usage_error(pytester, runs):
    for extra in (["--ca-candidate", str(runs / "few")], []):
        done = pytester.runpytest_inprocess(*PLUGIN, "--ca-baseline", str(runs / "base"), *extra)
        assert done.ret == pytest.ExitCode.USAGE_ERROR


def test_pytest_without_the_options_is_untouched(pytester):
    pytester.makepyfile("def test_x(): pass")
    done = pytester.runpytest_inprocess(*PLUGIN)
    done.assert_outcomes(passed=1)


def test_the_pytest_plugin_imports_nothing_heavy(pytester):
    code = (
        "import sys, lmms_ca_plugin.results.pytest_plugin; print([m for m in ('pandas', 'torch') if m in sys.modules])"
    )
    assert pytester.run(sys.executable, "-c", code).outlines == ["[]"]
