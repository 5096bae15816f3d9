"""Documents of the six schemas: answers, clusters, blank answers, what is refused."""

import copy

import pytest

from lmms_ca_plugin.errors import InputError
from lmms_ca_plugin.scoring import documents

TEN = ["a"] * 4 + ["dog"] * 6
DOCS = {
    "gqa": {"imageId": "n17", "answer": "dog"},
    "vqav2": {"image_id": 42, "answers": [{"answer": a, "answer_id": i} for i, a in enumerate(TEN)]},
    "okvqa": {"question_id": "2971475", "answers": TEN},
    "vizwiz": {"question_id": "VizWiz_val_1.jpg", "answers": TEN},
    "textvqa": {"image_id": "003a8ae2ef43b901", "answers": TEN},
    "docvqa": {"ucsf_document_id": "pybv0228", "ucsf_document_page_no": "81", "answers": ["dog", "a dog"]},
}
CLUSTERS = {
    "gqa": "n17",
    "vqav2": "42",
    "okvqa": "297147",
    "vizwiz": "VizWiz_val_1.jpg",
    "textvqa": "003a8ae2ef43b901",
    "docvqa": "pybv0228_81",
}


@pytest.mark.parametrize("name", documents.BENCHMARKS)
def test_scores_cluster_and_answers(name):
    doc = copy.deepcopy(DOCS[name])
    how = documents.BENCHMARKS[name]
    logged = getattr(documents, f"score_{name}")(doc, ["dog"])
    assert list(logged) == [how.main, how.official, "word_overlap"]
    assert {entry["cluster"] for entry in logged.values()} == {CLUSTERS[name]}
    assert [entry["score"] for entry in logged.values()] == [1, 1, 1]
    assert logged[how.main]["answers"] == documents.answers_of(DOCS[name])
    assert doc == DOCS[name]


def test_a_blank_answer_scores_0_in_the_main_column_and_as_the_official_code_says_beside_it():
    logged = documents.score_textvqa(DOCS["textvqa"], [" "])
    assert logged["vqa_accuracy"]["score"] == 0
    assert logged["textvqa_accuracy"]["score"] == 1  # "a" becomes blank, and four annotators said it
    assert logged["word_overlap"]["score"] == 0


def test_votes_and_alternatives_bear_different_names():
    mains = {name: how.main for name, how in documents.BENCHMARKS.items()}
    assert mains == {
        "gqa": "vqa_exact",
        "vqav2": "vqa_accuracy",
        "okvqa": "vqa_accuracy",
        "vizwiz": "vqa_accuracy",
        "textvqa": "vqa_accuracy",
        "docvqa": "vqa_exact",
    }


def test_target_is_the_most_frequent_answer():
    assert documents.target(DOCS["vqav2"]) == "dog"
    assert documents.target(DOCS["gqa"]) == "dog"


@pytest.mark.parametrize(
    ("name", "missing", "message"),
    [
        ("gqa", "imageId", "no 'imageId'"),
        ("gqa", "answer", "no 'answer'"),
        ("docvqa", "ucsf_document_page_no", "no 'ucsf_document_page_no'"),
        ("okvqa", "question_id", "no 'question_id'.*answers"),
    ],
)
def test_a_missing_column_is_named(name, missing, message):
    doc = {key: value for key, value in DOCS[name].items() if key != missing}
    with pytest.raises(InputError, match=message):
        documents.score(name, doc, "dog")


def test_a_test_split_is_refused():
    with pytest.raises(InputError, match=r"no 'answers'.*split with answers"):
        documents.score_vqav2({"image_id": 1, "answers": None}, ["dog"])
