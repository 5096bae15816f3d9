"""Every scorer loads as a local `evaluate` metric."""

import evaluate
import pytest

from lmms_ca_plugin import scoring
from lmms_ca_plugin.errors import OptionError
from lmms_ca_plugin.scoring.evaluate_metric import metric_path


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    # one folder for the module: `evaluate` imports its copies of the scripts as one package
    folder = tmp_path_factory.mktemp("evaluate")
    from evaluate.loading import init_dynamic_modules

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evaluate.config.HF_EVALUATE_OFFLINE", True)
        patch.setattr(
            "evaluate.loading.init_dynamic_modules",
            lambda *_: init_dynamic_modules(hf_modules_cache=str(folder / "modules")),
        )
        yield lambda scorer: evaluate.load(metric_path(scorer), cache_dir=str(folder))


@pytest.mark.parametrize("scorer", scoring.__all__)
def test_loads_and_agrees_with_the_function(scorer, load):
    answers = "dog" if scorer == "gqa_accuracy" else ["dog"] * 3 + ["cat"] * 7
    function = getattr(scoring, scorer)
    expected = (function("dog", answers) + function("bird", answers)) / 2
    result = load(scorer).compute(predictions=["dog", "bird"], references=[answers, answers])
    assert result == {scorer: pytest.approx(expected)}
    assert 0 < expected < 1


def test_options_reach_the_scorer(load):
    metric = load("vqa_accuracy")
    assert metric.compute(predictions=["dog"], references=[["dog"]], votes=False) == {"vqa_accuracy": 1}


def test_an_unknown_scorer_is_named():
    with pytest.raises(OptionError, match=r"'anlz'.*Did you mean 'anls'"):
        metric_path("anlz")
