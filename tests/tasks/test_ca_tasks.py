"""The tasks in the harness: prompts to the letter, scores, clusters and answers in the log."""

import importlib.util
from pathlib import Path

import local_sets
import pytest
from lmms_eval.api.model import lmms
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager
from lmms_eval.utils import load_yaml_config

from lmms_ca_plugin.harness.tasks import task_folder
from lmms_ca_plugin.scoring.documents import BENCHMARKS

OWN = {
    "gqa": "gqa/gqa.yaml",
    "vqav2": "vqav2/vqav2_val.yaml",
    "okvqa": "ok_vqa/ok_vqa_val2014.yaml",
    "vizwiz": "vizwiz_vqa/vizwiz_vqa_val.yaml",
    "textvqa": "textvqa/textvqa_val.yaml",
    "docvqa": "docvqa/docvqa_val.yaml",
}
HARNESS_TASKS = Path(importlib.util.find_spec("lmms_eval").origin).parent / "tasks"


def ours(name):
    return load_yaml_config(yaml_path=str(task_folder() / "ca" / f"ca_{name}.yaml"))


def theirs(name):
    return load_yaml_config(yaml_path=str(HARNESS_TASKS / OWN[name]))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_same_data_and_split_as_the_harness(name):
    for key in ("dataset_path", "dataset_name", "test_split", "output_type"):
        assert ours(name).get(key) == theirs(name).get(key), key


@pytest.mark.parametrize("name", BENCHMARKS)
@pytest.mark.parametrize("text", ["What COLOUR is the dog?", "is it a DOG", "", "ça va? 'x' ÉCOLE\n"])
def test_prompts_equal_the_harnesss_to_the_letter(name, text):
    mine, own = ours(name), theirs(name)
    prompts = {model: dict(kwargs) for model, kwargs in own["lmms_eval_specific_kwargs"].items()}
    assert set(mine["lmms_eval_specific_kwargs"]) == set(prompts)
    for model, kwargs in prompts.items():
        expected = own["doc_to_text"]({"question": text}, kwargs)
        found = mine["doc_to_text"]({"question": text}, mine["lmms_eval_specific_kwargs"][model])
        assert found == expected, model


@pytest.mark.parametrize("name", BENCHMARKS)
def test_greedy_and_short(name):
    kwargs = ours(name)["generation_kwargs"]
    assert kwargs == {"max_new_tokens": 32 if name == "docvqa" else 16, "temperature": 0, "do_sample": False}


class Painter(lmms):
    """Answers with the colour of the picture that it is shown, but for every fourth question, which it leaves blank."""

    is_simple = False

    def __init__(self):
        super().__init__()
        self.prompts = []

    def generate_until(self, requests):
        answers = []
        for _, to_messages, _, doc_id, task, split in (request.args for request in requests):
            image, text = to_messages(self.task_dict[task][split][doc_id])[-1]["content"]
            pixel = image["url"].getpixel((0, 0))
            names = {(255, 0, 0): "red", (0, 128, 0): "green", (0, 0, 255): "blue", (0, 0, 0): "black"}
            answers.append("" if doc_id % 4 == 3 else f"{names[pixel].capitalize()}.")
            self.prompts.append((task, doc_id, text["text"]))
        return answers

    def loglikelihood(self, requests):
        raise NotImplementedError

    def generate_until_multi_round(self, requests):
        raise NotImplementedError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    local_sets.write(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr("lmms_eval.api.task._resolve_hf_datasets_cache_dir", lambda: str(root / "cache"))
        patch.setattr("lmms_ca_plugin.harness.gqa._resolve_hf_datasets_cache_dir", lambda: str(root / "cache"))
        patch.setattr("datasets.config.HF_HUB_OFFLINE", True)
        model = Painter()
        manager = TaskManager(include_path=str(task_folder() / "ca"), include_defaults=False)
        results = simple_evaluate(model, tasks=["ca"], task_manager=manager, bootstrap_iters=0, log_samples=True)
    return results, model


@pytest.mark.parametrize("name", BENCHMARKS)
def test_metrics_and_log(run, name):
    results, _ = run
    how, task = BENCHMARKS[name], f"ca_{name}"
    found = results["results"][task]
    # 9 of 12 are answered; ANLS sees the period: red 3/4 (3 times), green and black 5/6, blue 4/5 (twice each)
    official = (3 * 3 / 4 + 4 * 5 / 6 + 2 * 4 / 5) / 12 if name == "docvqa" else 0.75
    assert found[f"{how.main},none"] == found["word_overlap,none"] == 0.75
    assert found[f"{how.official},none"] == pytest.approx(official)
    assert results["versions"][task] == 1.0
    samples = results["samples"][task]
    assert len(samples) == local_sets.QUESTIONS
    for sample in samples:
        assert set(sample[how.main]) == {"score", "cluster", "answers"}
        assert sample[how.main]["score"] == (0 if sample["doc_id"] % 4 == 3 else 1)
        assert all(isinstance(answer, str) for answer in sample[how.main]["answers"])
        assert sample["target"] in sample[how.main]["answers"]
    clusters = {sample[how.main]["cluster"] for sample in samples}
    assert len(clusters) == (12 if name == "vizwiz" else 4)


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name != "vizwiz"])
def test_the_harness_reads_our_clusters(run, name):
    from lmms_ca_plugin.results.statistics import clustered_stderr

    results, _ = run
    samples = [sample[BENCHMARKS[name].main] for sample in results["samples"][f"ca_{name}"]]
    ours = clustered_stderr([s["score"] for s in samples], [s["cluster"] for s in samples])
    logged = results["results"][f"ca_{name}"][f"{BENCHMARKS[name].main}_stderr_clustered,none"]
    assert logged == pytest.approx(ours, abs=1e-12)


def test_the_prompt_that_the_model_saw(run):
    _, model = run
    seen = {task: text for task, doc_id, text in model.prompts if doc_id == 0}
    assert seen["ca_gqa"] == ("Which COLOUR is picture 0?\nAnswer the question using a single word or phrase.")
    assert seen["ca_textvqa"].startswith("Which colour is picture 0?\n")
    assert "respond with 'Unanswerable'" in seen["ca_vizwiz"]
