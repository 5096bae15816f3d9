"""What the official scorers' own code gave."""

import json
from pathlib import Path

import pytest

from lmms_ca_plugin.scoring import anls, gqa_accuracy, textvqa_accuracy, vizwiz_accuracy, vqa_tool_accuracy

CONFORMANCE = Path(__file__).parents[2].parent / "shared" / "conformance"


def gqa_strict(prediction, answers):
    return gqa_accuracy(prediction, answers[0], convert=False)


def gqa_converted(prediction, answers):
    return gqa_accuracy(prediction, answers[0])


def vizwiz_loo(prediction, answers):
    return vizwiz_accuracy(prediction, answers, leave_one_out=True)


@pytest.mark.skipif(not CONFORMANCE.is_dir(), reason="../shared/conformance is not beside this checkout")
@pytest.mark.parametrize(
    ("file", "scorer", "key"),
    [
        ("vqa_official", vqa_tool_accuracy, "official_score"),
        ("okvqa", vqa_tool_accuracy, "official_score"),
        ("textvqa_evalai", textvqa_accuracy, "official_score"),
        ("vizwiz", vizwiz_accuracy, "official_score"),
        ("vizwiz", vizwiz_loo, "official_score_loo"),
        ("gqa", gqa_strict, "official_score"),
        ("gqa", gqa_converted, "llava_converted_score"),
        ("anls", anls, "official_score"),
    ],
)
def test_every_line(file, scorer, key):
    with (CONFORMANCE / f"{file}.jsonl").open(encoding="utf-8") as lines:  # splitlines() would split at U+2028 as well
        rows = [json.loads(line) for line in lines]
    assert len(rows) >= 500
    wrong = [
        (row["id"], scorer(row["prediction"], row["answers"]), row[key])
        for row in rows
        if abs(scorer(row["prediction"], row["answers"]) - row[key]) > 1e-6
    ]
    assert wrong == []
