"""The audit names what the printed tables and texts hold, all of it and no more."""

import pytest

from lmms_ca_plugin.results import audit as audit_module
from lmms_ca_plugin.results.audit import audit
from lmms_ca_plugin.results.published import PublishedRow

FACTS = [
    ("Table 1, LLaVA baseline, average", "printed 39.72, mean of its cells 39.73"),
    ("Table 1, Qwen-VL baseline, average", "printed 50.49, mean of its cells 50.48"),
    ("Table 1, LLaVA-v1.5 baseline, average", "printed 55.19, mean of its cells 55.20"),
    ("Table 2, LLaVA-v1.5 dola, average", "printed 55.04, mean of its cells 55.03"),
    ("Table 2, LLaVA-v1.6 dola, average", "printed 66.69, mean of its cells 66.70"),
    ("Table 2, LLaVA-v1.6 vicrop, average", "printed 67.00, mean of its cells 67.67"),
    ("Table 1, BLIP-2 baseline, average", "38.00 is over 5 sets, without docvqa"),
    ("Table 1, Flamingo-80B baseline, average", "45.45 is over 4 sets, without textvqa, docvqa"),
    ("Table 1, IDEFICS baseline, average", "37.82 is over 5 sets, without docvqa"),
    ("section 5.2 and Table 1, LLaVA-v1.5 contrastive, average", "58.17 in the text, 58.25 in the table"),
    ("review article", "2.3 in the text, 3.6 in the table; 2.3 is the gain on docvqa"),
    ("Table 2, LLaVA-v1.6 vicrop, vqav2", "81.4, the method has 80.7"),
    ("Table 1, Qwen2-VL baseline, average", "64.02, the method on LLaVA-v1.5 has 58.25"),
    (
        "Table 3, LLaVA-v1.5-7B deep and Table 2, LLaVA-v1.5 dola",
        "4 of 6 are equal: vqav2 70.1, okvqa 52.8, textvqa 56.1, docvqa 26.0",
    ),
    ("shallow", "0-15 in Table 3, 1-16 in section 4.1, 0-16 in section 5.5"),
    ("deep", "16-28 in Table 3, 17-28 in section 4.1, 16-28 in section 5.5"),
]


@pytest.mark.parametrize(("where", "what"), FACTS)
def test_a_fact_is_found(where, what):
    assert [f for f in audit() if f.where.startswith(where) and f.what.startswith(what)], [f.where for f in audit()]


def test_nothing_else_is_found():
    assert len(audit()) == len(FACTS)


def test_tables_that_add_up_give_no_finding_about_averages(monkeypatch):
    cells = dict.fromkeys(("gqa", "vqav2", "okvqa", "vizwiz", "textvqa", "docvqa"), "50.0") | {"average": "50.00"}
    rows = [PublishedRow(1, "X", "baseline", "", cells)]
    assert list(audit_module._averages(rows)) == []
    wrong = [PublishedRow(1, "X", "baseline", "", cells | {"average": "50.01"})]
    assert [finding.kind for finding in audit_module._averages(wrong)] == ["average, last digit"]
