import json
import os
import subprocess
import sys
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import datasets
import lmms_eval.api.task
import lmms_eval.tasks
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors import safe_open
from transformers import AutoConfig

from lmms_ca_plugin.errors import InputError, OptionError
from lmms_ca_plugin.harness.offline import pictures, write_suite
from lmms_ca_plugin.harness.offline.documents import render_documents
from lmms_ca_plugin.harness.offline.suite import MARKER

HARNESS_TASKS = Path(lmms_eval.tasks.__file__).parent
# task: (folder of the harness, split the task reads, rows, whether the rows carry answers)
TASKS = {
    "gqa": ("gqa", "testdev", 15, True),
    "vqav2_val": ("vqav2", "validation", 18, True),
    "vqav2_test": ("vqav2", "test", 4, False),
    "ok_vqa_val2014": ("ok_vqa", "val2014", 11, True),
    "vizwiz_vqa_val": ("vizwiz_vqa", "val", 10, True),
    "vizwiz_vqa_test": ("vizwiz_vqa", "test", 3, False),
    "textvqa_val": ("textvqa", "validation", 15, True),
    "textvqa_test": ("textvqa", "test", 4, False),
    "docvqa_val": ("docvqa", "validation", 19, True),
    "docvqa_test": ("docvqa", "test", 5, False),
}
# Columns in the order of the hub's cards.
COLUMNS = {
    "GQA/testdev_balanced_instructions/testdev": "id imageId question answer fullAnswer isBalanced groups entailed "
    "equivalent types annotations semantic semanticStr",
    "GQA/testdev_balanced_images/testdev": "id image",
    "VQAv2/data/validation": "question_type multiple_choice_answer answers image_id answer_type question_id question "
    "image",
    "OK-VQA/data/val2014": "question_id image question answers question_type answer_type",
    "VizWiz-VQA/data/val": "question_id image question answers category",
    "textvqa/data/validation": "image_id question_id question question_tokens image image_width image_height "
    "flickr_original_url flickr_300k_url answers image_classes set_name ocr_tokens",
    "DocVQA/DocVQA/validation": "questionId question question_types image docId ucsf_document_id "
    "ucsf_document_page_no answers data_split",
}


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """A suite of its own: other tests' runs leave caches in theirs."""
    return write_suite(tmp_path_factory.mktemp("offline") / "suite")


@pytest.fixture
def in_suite(suite, monkeypatch, tmp_path):
    """The current directory is the suite's, the data-set cache an empty one (this process read its own at import)."""
    monkeypatch.chdir(suite.folder)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setenv("LMMS_EVAL_DATASETS_CACHE", str(tmp_path))
    lmms_eval.api.task._resolve_hf_datasets_cache_dir.cache_clear()
    yield suite
    lmms_eval.api.task._resolve_hf_datasets_cache_dir.cache_clear()


def rows(suite, file):
    return pq.read_table(suite.data / f"{file}-00000-of-00001.parquet").to_pylist()


def digests(folder):
    return {p.relative_to(folder): sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", TASKS)
def test_the_harness_own_task_reads_the_suite(in_suite, name):
    folder, split, count, has_answers = TASKS[name]
    manager = lmms_eval.tasks.TaskManager(include_defaults=False, include_path=str(HARNESS_TASKS / folder))
    task = lmms_eval.tasks.get_task_dict([name], manager)[name]
    documents = list(task.eval_docs)
    assert (task.config.test_split, len(documents)) == (split, count)
    for document in documents:
        (picture,) = task.doc_to_visual(document)
        assert min(picture.size) > 100
        assert document["question"].lower() in task.doc_to_text(document).lower()
    right = documents[0].get("answers") or [documents[0].get("answer")]
    answer = right[0]["answer"] if isinstance(right[0], dict) else right[0]
    scored = task.process_results(documents[0], [answer if has_answers else "yes"])
    if has_answers:
        assert max(value for value in scored.values() if isinstance(value, float | int)) > 0.5
    else:
        assert scored["submission"]["answer"] == "yes"


def test_gqa_gets_the_picture_its_question_asks_about(in_suite):
    manager = lmms_eval.tasks.TaskManager(include_defaults=False, include_path=str(HARNESS_TASKS / "gqa"))
    documents = {d["question"]: d for d in lmms_eval.tasks.get_task_dict(["gqa"], manager)["gqa"].eval_docs}
    cat = Image.open(BytesIO(pictures.load_pictures()["chelsea"].content)).convert("RGB")
    assert documents["What animal is this?"]["image"].tobytes() == cat.tobytes()


@pytest.mark.parametrize("file", COLUMNS)
def test_columns_are_the_hubs(suite, file):
    schema = pq.read_schema(suite.data / f"{file}-00000-of-00001.parquet")
    assert schema.names == COLUMNS[file].split()
    assert b"huggingface" in schema.metadata


def test_test_splits_hold_no_answers(suite):
    assert {row["answers"] for row in rows(suite, "VQAv2/data/test")} == {None}
    assert {row["answers"] for row in rows(suite, "VizWiz-VQA/data/test")} == {None}
    assert {row["answers"] for row in rows(suite, "DocVQA/DocVQA/test")} == {None}
    assert {tuple(row["answers"]) for row in rows(suite, "textvqa/data/test")} == {("",) * 10}


@pytest.mark.parametrize("file", ["VQAv2/data/validation", "OK-VQA/data/val2014", "VizWiz-VQA/data/val"])
def test_vote_sets_have_ten_votes(suite, file):
    assert {len(row["answers"]) for row in rows(suite, file)} == {10}


def test_identifiers_are_unique_and_tell_the_image(suite):
    vqa = rows(suite, "VQAv2/data/validation") + rows(suite, "VQAv2/data/test")
    assert all(row["question_id"] // 1000 == row["image_id"] for row in vqa)
    ok = rows(suite, "OK-VQA/data/val2014")
    picture_of = {}
    for row in ok:  # evaluation clusters OK-VQA by the question id without its last digit
        assert picture_of.setdefault(row["question_id"][:-1], row["image"]["bytes"]) == row["image"]["bytes"]
    assert len(picture_of) == len({row["image"]["bytes"] for row in ok}) < len(ok)
    doc = rows(suite, "DocVQA/DocVQA/validation") + rows(suite, "DocVQA/DocVQA/test")
    gqa = rows(suite, "GQA/testdev_balanced_instructions/testdev")
    text = rows(suite, "textvqa/data/validation") + rows(suite, "textvqa/data/test")
    wiz = rows(suite, "VizWiz-VQA/data/val") + rows(suite, "VizWiz-VQA/data/test")
    for table, key in (
        (vqa, "question_id"),
        (ok, "question_id"),
        (gqa, "id"),
        (text, "question_id"),
        (doc, "questionId"),
        (wiz, "question_id"),
    ):
        assert len({row[key] for row in table}) == len(table)


def test_several_questions_share_an_image_except_in_vizwiz(suite):
    for file in ("VQAv2/data/validation", "textvqa/data/validation", "DocVQA/DocVQA/validation"):
        table = rows(suite, file)
        assert len({row["image"]["bytes"] for row in table}) < len(table)
    gqa = rows(suite, "GQA/testdev_balanced_instructions/testdev")
    assert len({row["imageId"] for row in gqa}) < len(gqa)
    wiz = rows(suite, "VizWiz-VQA/data/val")
    assert len({row["image"]["bytes"] for row in wiz}) == len(wiz)


def test_the_two_checkpoints_have_the_depth_the_paper_needs(suite):
    plain, grouped = (AutoConfig.from_pretrained(folder) for folder in (suite.llava, suite.llava_next))
    assert (plain.model_type, grouped.model_type) == ("llava", "llava_next")
    assert [c.text_config.num_hidden_layers for c in (plain, grouped)] == [32, 32]
    assert [c.text_config.num_key_value_heads for c in (plain, grouped)] == [4, 2]
    assert [c.text_config.max_position_embeddings for c in (plain, grouped)] == [4096, 4096]


def test_no_answer_of_the_suites_models_can_be_empty(suite):
    for folder in (suite.llava, suite.llava_next):
        with safe_open(folder / "model.safetensors", framework="pt") as weights:
            (name,) = [key for key in weights.keys() if key.endswith("lm_head.weight")]  # noqa: SIM118
            output = weights.get_tensor(name)
        eos = AutoConfig.from_pretrained(folder).text_config.eos_token_id
        assert not output[eos].any()
        assert output.any()


def test_the_readme_names_every_picture_and_its_licence(suite):
    text = (suite.folder / "README.md").read_text(encoding="utf-8")
    for picture in pictures.load_pictures().values():
        assert f"| {picture.name} | {picture.origin} | {picture.licence} |" in text
    assert "flickr.com/photos/danielbuechele" in text
    assert "random" in text


def test_a_rerun_changes_nothing_and_another_folder_gets_the_same_bytes(suite, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in suite.folder.rglob("*")}
    assert write_suite(suite.folder) == suite
    assert {path: path.stat().st_mtime_ns for path in suite.folder.rglob("*")} == before
    assert digests(write_suite(tmp_path / "other").folder) == digests(suite.folder)


def test_a_damaged_suite_is_mended_and_its_cache_dropped(tmp_path):
    suite = write_suite(tmp_path)
    sound = digests(tmp_path)
    (suite.llava / "config.json").write_text("{}")
    (suite.data / "GQA" / "README.md").unlink()
    stale = Path(suite.environment["HF_DATASETS_CACHE"])
    stale.mkdir(parents=True)
    (stale / "rows.arrow").write_text("old")
    (tmp_path / "my_results.json").write_text("kept")
    write_suite(tmp_path)
    assert (tmp_path / "my_results.json").read_text() == "kept"
    (tmp_path / "my_results.json").unlink()
    assert digests(tmp_path) == sound


def test_an_interrupted_run_is_finished_by_the_next(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("lmms_ca_plugin.harness.offline.suite.write_checkpoint", stop)
        write_suite(tmp_path)
    assert json.loads((tmp_path / MARKER).read_text())["files"] == {}
    assert (write_suite(tmp_path).llava / "model.safetensors").is_file()


def test_a_folder_that_is_not_ours_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("all of it")
    with pytest.raises(OptionError, match=r"is not empty and holds no offline suite \(lmms-ca-suite.json is missing\)"):
        write_suite(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_another_seed_and_a_broken_marker_and_a_file_are_refused(tmp_path):
    (tmp_path / MARKER).write_text(json.dumps({"format": 1, "seed": 0, "files": {}}))
    with pytest.raises(OptionError, match=r"holds a suite of seed 0, not 7\. Name another folder"):
        write_suite(tmp_path, seed=7)
    (tmp_path / MARKER).write_text("{")
    with pytest.raises(OptionError, match=r"cannot be read .* or name another folder"):
        write_suite(tmp_path)
    with pytest.raises(OptionError, match=r"is a file; the offline suite needs a folder"):
        write_suite(tmp_path / MARKER)


def test_a_picture_that_is_missing_or_another_one_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "_root", lambda package, path: tmp_path)
    with pytest.raises(InputError, match=r"needs the picture 'skimage/data/astronaut.png' of scikit-image, but"):
        write_suite(tmp_path / "suite")
    assert not (tmp_path / "suite").exists()
    (tmp_path / "skimage" / "data").mkdir(parents=True)
    (tmp_path / "skimage" / "data" / "astronaut.png").write_bytes(b"no cat")
    with pytest.raises(InputError, match=r"'skimage/data/astronaut.png' .* SHA-256 is \w{64}, expected 88431cd9"):
        write_suite(tmp_path / "suite")


def test_a_package_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "find_spec", lambda module: None)
    with pytest.raises(InputError, match=r"pictures of scikit-image, which is not installed\. Install scikit-image"):
        write_suite(tmp_path / "suite")


def test_pages_depend_on_the_seed_alone():
    first, again, other = (render_documents(2, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert [page.content for page in first] != [page.content for page in other]
    assert first[0].content != first[1].content
    for page in first:
        assert len({question.question for question in page.questions}) == len(page.questions) == 5


LOAD = (
    "from datasets import load_dataset as l; print(*l('lmms-lab-encoder/DocVQA', 'DocVQA', split='test')['question'])"
)


def test_two_suites_of_the_same_relative_name_do_not_share_rows(suite, tmp_path):
    other = write_suite(tmp_path / "other", seed=1)
    printed = {}
    for each in (suite, other):
        done = subprocess.run(
            [sys.executable, "-c", LOAD],
            cwd=each.folder,
            env=os.environ | each.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        printed[each.folder] = done.stdout.strip()
        assert all(
            Path(value).is_relative_to(each.folder) for key, value in each.environment.items() if "OFFLINE" not in key
        )
        assert any(Path(each.environment["HF_DATASETS_CACHE"]).rglob("*.arrow"))
        assert printed[each.folder] == " ".join(row["question"] for row in rows(each, "DocVQA/DocVQA/test"))
    assert printed[suite.folder] != printed[other.folder]
