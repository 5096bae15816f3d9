"""The mini sets: what is shipped is what the world gives, in the six schemas, asked as the harness asks."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from lmms_ca_plugin.errors import OptionError
from lmms_ca_plugin.scoring.documents import BENCHMARKS, score
from lmms_ca_plugin.tiny.benchmarks.mini import QUESTIONS, SCENE, choose, mini_features, mini_rows
from lmms_ca_plugin.tiny.evaluation import SHOWN, evaluate, means, most_frequent
from lmms_ca_plugin.tiny.world.prompts import INSTRUCTIONS
from lmms_ca_plugin.tiny.world.scenes import scene

TASKS = Path(__file__).parents[2] / "tasks"


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_the_shipped_rows_are_the_worlds(benchmark):
    shipped = pq.read_table(TASKS / "mini" / f"mini_{benchmark}.parquet")
    assert shipped.to_pylist() == mini_rows(benchmark) and len(shipped) == QUESTIONS
    assert shipped.schema.names == list(mini_features(benchmark))


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_every_question_is_about_an_evaluation_scene(benchmark):
    for row in mini_rows(benchmark):
        assert scene(row[SCENE]).split == "eval"


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_the_right_answer_scores_full_marks(benchmark):
    main = BENCHMARKS[benchmark].main
    for chosen, row in zip(choose(benchmark), mini_rows(benchmark), strict=True):
        assert score(benchmark, row, chosen.asked.answer)[main]["score"] == 1


def test_the_most_frequent_answers_score_little():
    assert means(most_frequent())["mean"] <= 45


def test_balanced_sets_are_balanced():
    answers = [row["answer"] for row in mini_rows("gqa")]
    assert 0.4 < answers.count("yes") / (answers.count("yes") + answers.count("no")) < 0.6
    unanswerable = [row["category"] for row in mini_rows("vizwiz")].count("unanswerable")
    assert 0.2 < unanswerable / QUESTIONS < 0.5


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_prompts_in_training_are_the_tasks(benchmark):
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))
    task = yaml.load((TASKS / "ca" / f"ca_{benchmark}.yaml").read_text(), Loader)
    default = task["lmms_eval_specific_kwargs"]["default"]
    assert default == {"pre_prompt": "", "post_prompt": INSTRUCTIONS[benchmark]}


def test_ways_to_show_pictures_are_refused_before_anything_is_loaded():
    with pytest.raises(OptionError, match="Unknown way to show pictures 'swaped'. Did you mean 'swapped'?"):
        evaluate("no such folder", ["own", "swaped"])


def test_swapped_pictures_are_each_shown_once_and_never_the_row_s_own():
    own = [f"shapes-eval-{n}" for n in range(7)]
    shown = SHOWN["swapped"](own)
    assert sorted(shown) == sorted(own) and all(a != b for a, b in zip(own, shown, strict=True))


def test_the_bundled_checkpoint_needs_its_pictures():
    found = {way: means(scores)["mean"] for way, scores in evaluate("mini", ["own", "none"], limit=6).items()}
    assert found["own"] > found["none"] + 35
