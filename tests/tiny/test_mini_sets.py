"""The mini sets: what is shipped is what the world gives, in the six schemas, asked as the harness asks."""

from itertools import chain
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from lmms_ca_plugin.cli import build
from lmms_ca_plugin.errors import InputError, OptionError
from lmms_ca_plugin.scoring.documents import BENCHMARKS, score
from lmms_ca_plugin.tiny.benchmarks.mini import QUESTIONS, SCENE, choose, mini_features, mini_rows, write_rows
from lmms_ca_plugin.tiny.evaluation import SHOWN, by_kind, cells, evaluate, means, most_frequent
from lmms_ca_plugin.tiny.world.prompts import INSTRUCTIONS
from lmms_ca_plugin.tiny.world.questions._asked import names
from lmms_ca_plugin.tiny.world.scenes import scene

TASKS = Path(__file__).parents[2] / "tasks"


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_the_shipped_rows_are_the_worlds(benchmark):
    shipped = pq.read_table(TASKS / "mini" / f"mini_{benchmark}.parquet")
    assert shipped.to_pylist() == mini_rows(benchmark) and len(shipped) == QUESTIONS
    assert shipped.schema.names == list(mini_features(benchmark))


def test_the_command_writes_what_is_shipped(tmp_path):
    result = CliRunner().invoke(build(), ["tiny", "rows", str(tmp_path / "mini")], catch_exceptions=False)
    written = sorted((tmp_path / "mini").iterdir())
    assert result.output.split() == [str(tmp_path / "mini" / f"mini_{benchmark}.parquet") for benchmark in BENCHMARKS]
    assert len(written) == len(BENCHMARKS)
    for file in written:
        assert pq.read_table(file).equals(pq.read_table(TASKS / "mini" / file.name))


# ---- no question of taste --------------------------------------------------------------------------------------------
def test_what_lies_beside_a_thing_is_the_same_however_it_is_read():
    """Next to it in its row or column, or anywhere on that side."""
    sides = {"left": ("column", -1), "right": ("column", 1), "above": ("row", -1), "below": ("row", 1)}
    found = 0
    for chosen in choose("gqa"):
        if not chosen.asked.kind.startswith("related"):
            continue
        axis, sign = next(of for word, of in sides.items() if f"{word} " in chosen.asked.question)
        said = chosen.asked.question.rstrip("?").split(" the ")[-1]
        (thing,) = (t for t in chosen.scene.things if said in names(t, chosen.scene.things))
        there = [t for t in chosen.scene.things if (getattr(t, axis) - getattr(thing, axis)) * sign > 0]
        assert [getattr(t, chosen.asked.kind.removeprefix("related ")) for t in there] == [chosen.asked.answer]
        found += 1
    assert found > 50


def test_nobody_asks_for_the_color_of_a_blurred_picture_or_counts_boards_as_shapes():
    for chosen in choose("vizwiz"):
        assert chosen.scene.quality != "blurred" or "color" not in chosen.asked.question
    for chosen in choose("vqav2"):
        assert not chosen.scene.signs or "sign" in chosen.asked.question


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_every_question_is_about_an_evaluation_scene(benchmark):
    """Its content is that of none of 500 training scenes of its kind."""
    asked = {scene(row[SCENE]).content for row in mini_rows(benchmark)}
    trained = {scene(f"{row[SCENE].partition('-')[0]}-train-{n}").content for n, row in enumerate(mini_rows(benchmark))}
    assert len(asked) > 100 and len(trained) > 100 and not asked & trained


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_the_right_answer_scores_full_marks(benchmark):
    main = BENCHMARKS[benchmark].main
    for chosen, row in zip(choose(benchmark), mini_rows(benchmark), strict=True):
        assert score(benchmark, row, chosen.asked.answer)[main]["score"] == 1


def test_the_most_frequent_answers_score_little():
    assert means(most_frequent())["mean"] <= 45
    assert {len(scores) for scores in most_frequent(limit=3).values()} == {3}


def test_one_scene_has_no_interval():
    assert cells({"gqa": [1.0]}) == ["100.0", "100.0"]


def test_rows_need_a_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file cannot be made: .* Name another folder"):
        write_rows(tmp_path / "file")


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


def test_scores_stand_with_their_intervals_which_are_not_symmetric():
    # Wilson's of 38 right in 40, nearly: some questions share a scene
    scores, mean = cells({"gqa": [0.0, *[1.0] * 38, 0.0]})
    assert (scores[:6], mean) == ("95.0 [", "95.0")
    low, high = map(float, scores[6:-1].split(", "))
    assert low == pytest.approx(83.1, abs=0.6) and high == pytest.approx(98.7, abs=0.3)


def test_scores_are_sorted_by_the_kinds_of_their_questions():
    """Every score once, under the kind of the question at its place; a limit leaves the last questions out."""
    limited = {"vqav2": 40, "gqa": QUESTIONS}
    found = by_kind({of: [float(n) for n in range(limit)] for of, limit in limited.items()})
    assert [of for of, _ in found] == sorted((of for of, _ in found), reverse=True)
    for benchmark, limit in limited.items():
        kinds = {kind: values for (of, kind), values in found.items() if of == benchmark}
        assert len(kinds) > 2 and sorted(chain.from_iterable(kinds.values())) == [float(n) for n in range(limit)]
        chosen = choose(benchmark)
        assert all(chosen[int(n)].asked.kind == kind for kind, values in kinds.items() for n in values)


def test_the_command_prints_scores_by_kind():
    output = CliRunner().invoke(build(), ["tiny", "kinds", "--limit", "3"], catch_exceptions=False).stdout
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in output.split("\n") if line]
    assert lines[0] == ["set", "kind", "questions", "score"]
    assert {line[0] for line in lines[2:]} == set(BENCHMARKS)
    assert sum(int(line[2]) for line in lines[2:]) == 3 * len(BENCHMARKS)
