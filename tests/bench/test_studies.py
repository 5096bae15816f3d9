"""The bench of studies: what is compared with what, and what is concluded. No time is asserted."""

import json
import sys

import pytest
from typer.testing import CliRunner

from lmms_ca_plugin.bench import models, studies
from lmms_ca_plugin.bench.pairs import Pair
from lmms_ca_plugin.bench.studies import StudiesOptions, StudyCost, measure
from lmms_ca_plugin.cli import build
from lmms_ca_plugin.engine.agreement import Agreement
from lmms_ca_plugin.errors import LmmsCaError, OptionError
from lmms_ca_plugin.tiny import TinySettings


@pytest.fixture(scope="module")
def family():
    return models.small_family(TinySettings("llava", num_blocks=4, hidden_size=32, image_size=56))


@pytest.fixture(scope="module")
def sweep(family):
    return measure(family, StudiesOptions(("layers",), pairs=1, batch_size=2, new_tokens=2))[0]


def test_the_layer_sweep_is_measured_against_its_variants_one_by_one(sweep):
    assert (sweep.variants, sweep.branches, sweep.agreement) == (5, (5, 5), Agreement(10, ()))
    assert len(sweep.pairs) == 1 and sweep.pairs[0].base > 0
    assert sweep.least == sweep.floor.share < 1
    assert len(set(sweep.peaks)) == len(set(sweep.vanilla_peaks)) == 1, "allocations do not repeat"


def test_table_3_with_figure_7_is_measured_against_one_run_without_the_harness(monkeypatch, tmp_path):
    for package in ("lmms_eval", "datasets", "evaluate", "matplotlib"):
        monkeypatch.setitem(sys.modules, package, None)  # importing it fails
    family = models.small_family(TinySettings("llava", hidden_size=32, image_size=56))  # 32 blocks: the paper's
    monkeypatch.setattr(models, "build_family", lambda device, seed: family)
    file = tmp_path / "studies.json"
    arguments = ["--studies", "masking", "--pairs", "1", "--batch-size", "1", "--new-tokens", "1", "--threads", "1"]
    given = ["bench", "studies", *arguments, "--json", str(file)]
    result = CliRunner().invoke(build(), given, catch_exceptions=False)
    assert result.exit_code == 0 and "Table 3 and Figure 7" in result.stdout
    record = json.loads(file.read_text())
    study = record["studies"]["masking"]
    assert study["variants"] == 16 and study["against"] == "one vanilla run"
    assert study["agreement"] == {"compared": 1, "margins": [], "differing": 0}
    assert "1 of 1 answers are the same there." in result.stdout.replace("\n", " ")
    assert 9 <= study["branches"][0] <= 14  # of the 16, rho=0 is vanilla, and fusion is rho=0.2
    assert [claim["most"] for claim in study["claims"]] == [2.0, 1.15]
    assert record["options"]["studies"] == ["masking"] and study["floor"]["baseline_runs"] > 1


def test_a_study_must_be_fast_and_near_its_floor(sweep):
    share = sweep.floor.share
    pairs = tuple(Pair(1.0, share * 1.1, True) for _ in range(9))
    cost = StudyCost(**{**vars(sweep), "pairs": pairs})
    fast, near = cost.claims
    assert fast.estimate.median == pytest.approx(1.1 * share) and fast.most == 0.55
    assert near.estimate.median == pytest.approx(1.1) and near.verdict == "met"
    far = StudyCost(**{**vars(sweep), "pairs": tuple(Pair(1.0, share * 1.2, True) for _ in range(9))})
    assert far.claims[1].verdict == "missed"


def test_all_answers_have_as_many_tokens_as_asked(family, monkeypatch):
    monkeypatch.setattr(studies, "frozenset", lambda: frozenset(range(10_000)), raising=False)
    with pytest.raises(LmmsCaError, match="layer sweep, vanilla decoded 0 tokens in place of 2"):
        measure(family, StudiesOptions(("layers",), pairs=1, batch_size=1, new_tokens=2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"studies": ("layer",)}, "Unknown study 'layer'. Did you mean 'layers'?"),
        ({"studies": ("layers", "layers")}, "studies=layers,layers names none, or one twice."),
        ({"pairs": 0}, "pairs=0 is not allowed. Allowed: 1 and more."),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(OptionError) as caught:
        StudiesOptions(**options)
    assert message in str(caught.value)
