"""A sweep's table becomes scores by block: complete, paired, in one order, or refused by name."""

import numpy as np
import pandas as pd
import pytest

from lmms_ca_plugin.errors import InputError, OptionError
from lmms_ca_plugin.results.layer_scores import LayerScores, Variant, from_table

SCORES = np.round(np.random.default_rng(3).random((9, 6)), 2)  # vanilla, 4 blocks zero, 4 blocks knockout


def table(**column):
    variants = [("vanilla", None), *(("zero", b) for b in range(4)), *(("knockout", b) for b in range(4))]
    rows = [
        {
            "mode": mode,
            "block": block,
            "task": task,
            "document": doc,
            "cluster": doc // 2,
            "score": SCORES[v, 3 * t + doc],
        }
        for v, (mode, block) in enumerate(variants)
        for t, task in enumerate(("a", "b"))
        for doc in range(3)
    ]
    return pd.DataFrame(rows).assign(**column)


def test_rows_in_any_order_become_the_same_sweep():
    found = from_table(table().sample(frac=1, random_state=1), 4)
    assert found.clusters == ("a/0", "a/0", "a/1", "b/0", "b/0", "b/1")
    read = [found.vanilla, *found.zero, *found.knockout]
    np.testing.assert_array_equal([variant.scores for variant in read], SCORES)
    assert all(variant.ran_away is None for variant in read)


def test_knockout_and_runaway_flags_are_optional():
    rows = table(ran_away=lambda t: t["score"] > 0.5)
    found = from_table(rows[rows["mode"] != "knockout"], 4)
    assert found.knockout == () and len(found.zero) == 4
    np.testing.assert_array_equal([v.ran_away for v in found.zero], SCORES[1:5] > 0.5)


def test_a_part_keeps_the_documents_of_every_variant():
    chosen = np.array([True, False, False, True, False, True])
    found = from_table(table(ran_away=True), 4).part(chosen)
    assert found.clusters == ("a/0", "b/0", "b/1")
    np.testing.assert_array_equal([v.scores for v in (*found.zero, *found.knockout)], SCORES[1:, chosen])
    assert all(v.ran_away.tolist() == [True] * 3 for v in found.zero)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns=["cluster", "score"]), "lacks the columns cluster, score"),
        (lambda t: t[t["mode"] != "vanilla"], "no document of vanilla. Run it too"),
        (lambda t: t[t["mode"] != "zero"], "no document of mode=zero, block 0"),
        (lambda t: t[t["block"] != 2], "no document of mode=zero, block 2"),
        (
            lambda t: t.drop(index=13),
            r"1 documents are missing in mode=zero, block 1, the first is document 1 of task a\.",
        ),
        (lambda t: t.drop(index=1), r"1 documents are only in mode=zero, block 0, the first is document 1 of task a\."),
        (lambda t: pd.concat([t, t.tail(1)]), r"has document 2 of task b twice for mode=knockout, block 3"),
        (lambda t: t.assign(block=t["block"] + 1), r"has block 4.* of mode=zero. Allowed: 0 to 3"),
        (lambda t: t.assign(score=t["score"].mask(t.index == 8)), "score at position 2 is nan; allowed is 0 to 1"),
        (lambda t: t.assign(score=100 * t["score"]), "allowed is 0 to 1"),
        (
            lambda t: t.assign(ran_away=t["block"].eq(1).where(t.index != 9)),
            r"Whether document 0 of task b ran away is not known",
        ),
    ],
)
def test_what_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        from_table(change(table()), 4)


def test_an_unknown_mode_is_named():
    with pytest.raises(OptionError, match="Unknown mode of a layer sweep 'knock_out'. Did you mean 'knockout'"):
        from_table(table(mode="knock_out"), 4)


def test_arrays_that_do_not_fit_are_refused():
    two, three = Variant(np.zeros(2)), Variant(np.zeros(3))
    with pytest.raises(InputError, match="3 scores but 2 clusters"):
        LayerScores(("a", "b"), two, (two, three))
    with pytest.raises(InputError, match="mode=zero has 2 blocks, mode=knockout 1"):
        LayerScores(("a", "b"), two, (two, two), (two,))
    with pytest.raises(InputError, match="1 flags of runaway answers but 2 scores"):
        Variant(np.zeros(2), np.zeros(1, dtype=bool))
    with pytest.raises(InputError, match=r"shape \(0,\)"):
        Variant(np.zeros(0))
