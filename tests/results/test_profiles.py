"""Profiles against a rewrite of the rule by brute force, and what becomes of them in `contrastive`."""

import hashlib
import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq
from trunks import PAPER

from lmms_ca_plugin.errors import InputError, OptionError
from lmms_ca_plugin.layer_profile import read_profile
from lmms_ca_plugin.methods.contrastive import Contrastive
from lmms_ca_plugin.results.layer_scores import LayerScores, VariantScores
from lmms_ca_plugin.results.profile_file import to_json, write_profile
from lmms_ca_plugin.results.profiles import Half, ProfileRules, candidates, find_profile, halves, sizes_of_halves

BLOCKS = 8
TRUNK = replace(PAPER, num_blocks=BLOCKS)


def sweep(losses, n=400, size=1, seed=0, knockout=False, ran_away=False):
    """A sweep whose block l loses `losses[l]` of its right answers, and gains none."""
    generator = np.random.default_rng(seed)
    vanilla = (generator.random(n) < 0.8).astype(float)
    masked = [VariantScores(vanilla * (np.repeat(generator.random(n // size), size) >= loss)) for loss in losses]
    flags = [VariantScores(v.scores, v.scores == 0) for v in masked] if ran_away else masked
    clusters = tuple(f"picture {i // size}" for i in range(n))
    unmasked = VariantScores(vanilla, np.zeros(n, dtype=bool) if ran_away else None)
    return LayerScores(clusters, unmasked, tuple(flags), tuple(flags[::-1]) if knockout else ())


PLANTED = [0.3, 0.0, 0.4, 0.0, 0.0, 0.0, 0.4, 0.0]


def profile_of(scores, **rules):
    return find_profile(scores, "llava", "ab12", ProfileRules(**rules))


def blocks_of(profile):
    return profile.layers.fusion, profile.layers.post, profile.layers.review


# ---- the rule, written a second time -------------------------------------------------------------------------------
def naive_p_value(differences, clusters):
    """One-sided test against 5 points, by the double sum over all pairs of documents and a search for the table."""
    n, residuals = len(differences), differences - differences.mean()
    together = clusters[:, None] == clusters[None]
    own = np.eye(n, dtype=bool)
    product = residuals[:, None] * residuals[None]
    variance = product[own].sum() / (n * (n - 1)) + product[together & ~own].sum() / n**2
    count, mean = len(set(clusters)), differences.mean()
    moved = [total for total in (differences[clusters == cluster].sum() for cluster in set(clusters)) if total]
    answers = n / np.sqrt(np.mean(np.square(moved))) if moved else count
    changed = max(answers**2 * variance + answers * mean**2, answers * abs(mean))
    gained, lost = (changed + answers * mean) / 2, (changed - answers * mean) / 2

    def likelihood_slope(q):  # of a share q lost and q + 0.05 gained
        return gained / (q + 0.05) + lost / q - 2 * (answers - changed) / (0.95 - 2 * q)

    q = brentq(likelihood_slope, 1e-15, 0.475 - 1e-15) if likelihood_slope(1e-15) > 0 else 0
    return stats.t.sf((mean - 0.05) / np.sqrt((2 * q + 0.05 - 0.05**2) / answers), count - 1)


def naive_claims(p_values):
    """Holm's rule as the closed test that it is: every set that holds the block has a small enough p-value in it."""
    sets = [s for size in range(1, len(p_values) + 1) for s in combinations(p_values, size)]
    passed = {s for s in sets if min(p_values[b] for b in s) < 0.05 / len(s)}
    return {b for b in p_values if all(s in passed for s in sets if b in s)}


def naive(scores, seed):
    vanilla, zero = scores.vanilla.scores, [v.scores for v in scores.zero] + [scores.vanilla.scores]
    clusters = np.array(scores.clusters)
    first = np.array([int(hashlib.sha256(f"{seed}|{c}".encode()).hexdigest()[:2], 16) % 2 == 0 for c in clusters])

    def claims(role, blocks, half):
        def p_value(block):
            others = [vanilla] if role == "fusion" else [zero[block - 1], zero[block + 1]]
            return max(naive_p_value((other - zero[block])[half], clusters[half]) for other in others)

        return naive_claims({block: p_value(block) for block in blocks})

    verdicts = {}
    for role, blocks in (("fusion", [b for b in range(BLOCKS) if b < BLOCKS / 2]), ("review", [6, 7])):
        found = claims(role, blocks, first)
        confirmed = claims(role, sorted(found), ~first)
        said = {True: "confirmed", False: "not confirmed"}
        verdicts |= {(role, b): said[b in confirmed] if b in found else "not found" for b in blocks}
    return verdicts


@pytest.mark.parametrize("size", [1, 2])
def test_the_rule_by_brute_force(size):
    seen = set()
    for seed in range(12):
        losses = np.random.default_rng(seed).choice([0.0, 0.15, 0.2, 0.25, 0.5], BLOCKS)
        losses[5:] = np.random.default_rng(seed).permutation([0.0, 0.1 + 0.03 * seed, 0.0])
        scores = sweep(losses, n=240, size=size, seed=seed)
        found = profile_of(scores, seed=seed)
        expected = naive(scores, seed)
        assert {(test.role, test.block): test.verdict for test in found.tests} == expected
        confirmed = {
            role: [b for r, b in expected if r == role and expected[r, b] == "confirmed"] for role, _ in expected
        }
        drops = {b: (scores.vanilla.scores - scores.zero[b].scores).mean() for b in range(BLOCKS)}
        review = max(confirmed["review"], key=drops.__getitem__, default=None)
        assert blocks_of(found) == (tuple(confirmed["fusion"]), None if review is None else review - 1, review)
        seen |= {(role, verdict) for (role, _), verdict in expected.items()}
    assert seen == {(role, v) for role in ("fusion", "review") for v in ("confirmed", "not confirmed", "not found")}


# ---- what it says ----------------------------------------------------------------------------------------------------
def test_planted_blocks_are_found():
    assert blocks_of(profile_of(sweep(PLANTED))) == ((0, 2), 5, 6)


def test_no_review_block_is_an_answer():
    assert blocks_of(profile_of(sweep([0.3] * 4 + [0.0] * 4))) == ((0, 1, 2, 3), None, None)
    assert blocks_of(profile_of(sweep([0.0] * BLOCKS))) == ((), None, None)


def test_a_slope_or_a_plateau_has_no_review_block():
    for losses in (np.linspace(0.7, 0.0, BLOCKS), [0.0] * 6 + [0.4, 0.4], [0.0] * 5 + [0.4, 0.4, 0.0]):
        assert profile_of(sweep(losses)).layers.review is None


def test_the_last_blocks_upper_neighbour_is_vanilla():
    assert blocks_of(profile_of(sweep([0.0] * 7 + [0.4])))[1:] == (6, 7)
    # more than the block before it, but masking it loses nothing: the block before it gains
    scores = sweep([0.0] * 8)
    better = VariantScores(np.ones(400))
    gaining = LayerScores(scores.clusters, scores.vanilla, (*scores.zero[:6], better, scores.zero[7]))
    assert (better.scores - scores.zero[7].scores).mean() > 0.15
    assert profile_of(gaining).layers.review is None


def test_of_several_review_blocks_the_largest_drop_counts():
    blocks = candidates("review", 12)
    assert list(blocks) == [9, 10, 11]
    for losses, review in (([0.3, 0.0, 0.5], 11), ([0.5, 0.0, 0.3], 9)):
        found = profile_of(sweep([0.0] * 9 + losses))
        assert [t.block for t in found.tests if t.role == "review" and t.verdict == "confirmed"] == [9, 11]
        assert (found.layers.post, found.layers.review) == (review - 1, review)


@pytest.mark.parametrize(("num_blocks", "fusion", "review"), [(32, 16, 24), (9, 5, 7), (5, 3, 4), (4, 2, 3)])
def test_candidates_are_not_rounded(num_blocks, fusion, review):
    assert candidates("fusion", num_blocks) == range(fusion)
    assert candidates("review", num_blocks) == range(review, num_blocks)


def test_what_one_half_does_not_show_is_reported_and_left_out():
    scores = sweep([0.0] * BLOCKS)
    finds = halves(scores.clusters, 0)
    one_half = VariantScores(np.where(finds, 0.0, scores.vanilla.scores))
    found = profile_of(LayerScores(scores.clusters, scores.vanilla, (scores.zero[0], one_half, *scores.zero[2:])))
    (test,) = [test for test in found.tests if test.verdict != "not found"]
    assert (test.role, test.block, test.verdict) == ("fusion", 1, "not confirmed")
    assert test.found.holds and not test.confirmed.holds
    assert found.layers.fusion == ()


def test_halves_are_of_whole_pictures_and_stay():
    clusters = [f"picture {i // 3}" for i in range(3000)]
    finds = halves(clusters, 0)
    assert all(len(set(finds[i : i + 3])) == 1 for i in range(0, 3000, 3))
    assert 0.45 < finds.mean() < 0.55
    np.testing.assert_array_equal(halves(clusters[:300], 0), finds[:300])
    assert (halves(clusters, 1) != finds).mean() > 0.4
    pictures = int(finds.sum()) // 3
    assert sizes_of_halves(clusters, 0) == (Half(3 * pictures, pictures), Half(3000 - 3 * pictures, 1000 - pictures))


def test_curves_stand_beside_it():
    found = profile_of(sweep(PLANTED, knockout=True, ran_away=True))
    scores = sweep(PLANTED, knockout=True, ran_away=True)
    for at, zero, knockout in zip(found.curves, scores.zero, scores.knockout, strict=True):
        drop = scores.vanilla.scores - zero.scores
        assert at.zero.drop == pytest.approx(drop.mean())
        assert at.knockout.drop == pytest.approx((scores.vanilla.scores - knockout.scores).mean())
        assert at.zero.low < at.zero.drop < at.zero.high
        if drop.any():
            interval = stats.ttest_1samp(drop, 0).confidence_interval(0.95)
            assert (at.zero.low, at.zero.high) == pytest.approx(tuple(interval), abs=4e-3)
        assert at.zero.runaway.mean == pytest.approx((zero.scores == 0).mean())
    assert found.calibration.runaway.mean == 0 < found.calibration.runaway.high
    assert profile_of(sweep(PLANTED)).curves[0].knockout is None
    assert profile_of(sweep(PLANTED)).curves[0].zero.runaway is None


def test_what_is_refused():
    with pytest.raises(InputError, match="has 3 blocks; a profile needs at least 4"):
        profile_of(sweep([0.0] * 3))
    with pytest.raises(
        InputError, match=r"400 documents show \d+ pictures in the half that finds .* 20 each are needed"
    ):
        profile_of(sweep(PLANTED, n=400, size=20))
    with pytest.raises(InputError, match="margin is 500 points"):
        ProfileRules(margin=5)
    with pytest.raises(InputError, match="alpha is 0"):
        ProfileRules(alpha=0)


# ---- the file --------------------------------------------------------------------------------------------------------
def test_the_file_is_what_contrastive_takes(tmp_path):
    found = profile_of(sweep(PLANTED, knockout=True))
    write_profile(tmp_path / "new" / "profile.json", found)
    assert read_profile(tmp_path / "new" / "profile.json") == found.layers
    plan = Contrastive.from_options({"profile": str(tmp_path / "new" / "profile.json")}).plan(TRUNK)
    assert [read.block for read in plan.reads] == [0, 2, 5]
    assert [edit.block for edit in plan.edits] == [6]


def test_without_a_review_block_contrastive_does_not_guess(tmp_path):
    write_profile(tmp_path / "profile.json", profile_of(sweep([0.3] + [0.0] * 7)))
    assert json.loads((tmp_path / "profile.json").read_text())["review"] is None
    with pytest.raises(OptionError, match="says that no review block was found. Name one with review_layer, or do"):
        Contrastive(profile=str(tmp_path / "profile.json")).plan(TRUNK)


def test_the_file_holds_percent_and_all_it_rests_on():
    source = {"tasks": ["a"], "limit": 400}
    held = to_json(find_profile(sweep(PLANTED, ran_away=True), "llava", "ab12", source=source))
    assert json.loads(json.dumps(held, allow_nan=False)) == held
    assert {k: held[k] for k in ("schema", "model_type", "num_blocks", "checkpoint_sha")} == {
        "schema": 1,
        "model_type": "llava",
        "num_blocks": BLOCKS,
        "checkpoint_sha": "ab12",
    }
    assert "lower bound above 5 points" in held["rule"] and "seed 0" in held["rule"]
    assert [curve["block"] for curve in held["curves"]] == list(range(BLOCKS))
    assert 20 < held["curves"][6]["zero"]["drop"] < 45 and held["curves"][6]["knockout"] is None
    assert (
        held["calibration"]["documents"]
        == 400
        == sum(held["calibration"][h]["documents"] for h in ("finding", "confirming"))
    )
    assert held["calibration"]["source"] == source
    assert [(t["role"], t["block"]) for t in held["tests"] if t["verdict"] == "confirmed"] == [
        ("fusion", 0),
        ("fusion", 2),
        ("review", 6),
    ]
