"""A sweep's table becomes scores by block: complete, paired, in one order, or refused by name."""

import weakref
from itertools import product

import numpy as np
import pandas as pd
import pytest

from lmms_ca_plugin.errors import InputError, OptionError
from lmms_ca_plugin.results.layer_scores import LayerScores, VariantScores, from_tables

SCORES = np.round(np.random.default_rng(3).random((9, 6)), 2)  # vanilla, 4 blocks zero, 4 blocks knockout


VARIANTS = [("vanilla", -1), *((mode, block) for mode in ("zero", "knockout") for block in range(4))]


def tables(change=lambda t: t):
    """By variant its table, made of a table of all of them that was changed."""
    rows = [
        {"mode": mode, "block": block, "task": task, "document": doc, "cluster": f"p{doc // 2}", "score": score}
        for (mode, block), scores in zip(VARIANTS, SCORES, strict=True)
        for (task, doc), score in zip(product("ab", range(3)), scores, strict=True)
    ]
    return dict(list(change(pd.DataFrame(rows)).groupby(["mode", "block"], sort=False)))


def read(tables, num_blocks=4):
    vanilla = tables.pop(("vanilla", -1))
    return from_tables(vanilla, ((*variant, table) for variant, table in tables.items()), num_blocks)


def test_rows_and_variants_in_any_order_become_the_same_sweep():
    found = read(tables(lambda t: t.sample(frac=1, random_state=1)))
    assert found.clusters == ("p0", "p0", "p1") * 2  # one name is one picture, whatever the task
    np.testing.assert_array_equal([v.scores for v in (found.vanilla, *found.zero, *found.knockout)], SCORES)
    assert found.vanilla.ran_away is None and all(v.ran_away is None for v in found.zero)


def test_knockout_and_runaway_flags_are_optional():
    found = read(tables(lambda t: t.assign(ran_away=t["score"] > 0.5)[t["mode"] != "knockout"]))
    assert found.knockout == () and len(found.zero) == 4
    np.testing.assert_array_equal([v.ran_away for v in found.zero], SCORES[1:5] > 0.5)


def test_a_part_keeps_the_documents_of_every_variant():
    chosen = np.array([True, False, False, True, False, True])
    found = read(tables(lambda t: t.assign(ran_away=True))).part(chosen)
    assert found.clusters == ("p0", "p0", "p1")
    np.testing.assert_array_equal([v.scores for v in (*found.zero, *found.knockout)], SCORES[1:, chosen])
    assert all(v.ran_away.tolist() == [True] * 3 for v in found.zero)


def test_of_a_variant_nothing_is_kept_but_scores_and_flags():
    seen = []

    def one_by_one(masked):
        for variant, table in masked.items():
            assert all(earlier() is None for earlier in seen[:-1])
            copy = table.copy()
            seen.append(weakref.ref(copy))
            yield *variant, copy
            del copy

    masked = tables(lambda t: t.assign(ran_away=True))
    from_tables(masked.pop(("vanilla", -1)), one_by_one(masked), 4)
    assert len(seen) == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns=["cluster", "score"]), "table of vanilla lacks the columns cluster, score"),
        (lambda t: t[t["mode"] != "zero"], "no document of mode=zero, block 0"),
        (lambda t: t[t["block"] != 2], "no document of mode=zero, block 2"),
        (
            lambda t: t.drop(index=13),
            r"1 documents are missing in mode=zero, block 1, the first is document 1 of task a\.",
        ),
        (lambda t: t.drop(index=1), r"1 documents are only in mode=zero, block 0, the first is document 1 of task a\."),
        (lambda t: pd.concat([t, t.tail(1)]), r"has document 2 of task b twice for mode=knockout, block 3"),
        (lambda t: t.assign(block=t["block"].replace(3, 4)), "has block 4 of mode=zero. Allowed: 0 to 3"),
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
        read(tables(change))


def test_a_sweep_without_vanilla_and_a_variant_given_twice_are_refused():
    of = tables()
    vanilla, zero = of["vanilla", -1], of["zero", 0]
    with pytest.raises(InputError, match="no document of vanilla. Run it too"):
        from_tables(vanilla[:0], [], 4)
    with pytest.raises(InputError, match="has mode=zero, block 0 twice"):
        from_tables(vanilla, [("zero", 0, zero), ("zero", 0, zero)], 4)


def test_an_unknown_mode_is_named():
    with pytest.raises(OptionError, match="Unknown mode of a layer sweep 'knock_out'. Did you mean 'knockout'"):
        read(tables(lambda t: t.replace("knockout", "knock_out")))


def test_arrays_that_do_not_fit_are_refused():
    two, three = VariantScores(np.zeros(2)), VariantScores(np.zeros(3))
    with pytest.raises(InputError, match="3 scores but 2 clusters"):
        LayerScores(("a", "b"), two, (two, three))
    with pytest.raises(InputError, match="mode=zero has 2 blocks, mode=knockout 1"):
        LayerScores(("a", "b"), two, (two, two), (two,))
    with pytest.raises(InputError, match="1 flags of runaway answers but 2 scores"):
        VariantScores(np.zeros(2), np.zeros(1, dtype=bool))
    with pytest.raises(InputError, match=r"shape \(0,\)"):
        VariantScores(np.zeros(0))
