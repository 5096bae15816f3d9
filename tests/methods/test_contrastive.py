"""Contrastive attention: the formulas on hand-made maps, a naive float64 reference, and every option."""

import hashlib
import json
import math
from dataclasses import replace

import pytest
import torch
from naive import attention_of_last_token, eager, generate
from scipy.spatial.distance import jensenshannon
from toys import ask, make_family, mixed_questions
from trunks import PAPER, SMALL

from lmms_ca_plugin.engine.engine import Engine
from lmms_ca_plugin.engine.generation import Generation
from lmms_ca_plugin.engine.requests import Request, RunOptions, sample_seed
from lmms_ca_plugin.engine.run import Run
from lmms_ca_plugin.errors import InputError, OptionError
from lmms_ca_plugin.families._contract import Kind, Prompt
from lmms_ca_plugin.methods import load_method
from lmms_ca_plugin.methods._contract import Plan, Read
from lmms_ca_plugin.methods._distances import distribution, hellinger, jensen_shannon
from lmms_ca_plugin.methods.contrastive import Contrastive, at_most, lowest, random_scores

LAYERS = {"scope": "0:1:2", "review_layer": 4}
SITES = ("residual", "post_norm", "kv", "value", "logit", "knockout")


# ---- formulas -------------------------------------------------------------------------------------------------------
def test_distances_by_hand():
    p, q = torch.tensor([0.5, 0.5, 0.0]).double(), torch.tensor([0.0, 0.5, 0.5]).double()
    assert hellinger(p, q).item() == pytest.approx(math.sqrt(0.5))  # 1 - sum sqrt(p q) = 1/2
    assert jensen_shannon(p, q).item() == pytest.approx(0.5)
    apart = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    for distance in (hellinger, jensen_shannon):
        assert distance(*apart).item() == pytest.approx(1.0)
        assert distance(p, p).item() == 0.0


def test_a_prompt_without_pictures_has_an_empty_distribution():
    assert distribution(torch.zeros(2, 3)).tolist() == [[0.0] * 3] * 2


def test_lowest_takes_exactly_n_in_stable_order():
    score = torch.tensor([[0.3, 0.1, 0.1, 0.1, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    eligible = torch.tensor([[True, True, True, True, False], [True] * 5])
    masked = lowest(score, eligible, torch.tensor([2, 3]))
    assert masked.int().tolist() == [[0, 1, 1, 0, 0], [1, 1, 1, 0, 0]]


def test_at_most_masks_every_tie_and_all_negatives():
    score = torch.tensor([[-0.5, -0.1, 0.0, 0.2, 0.3], [0.1, 0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4, 0.5]])
    eligible = torch.ones(3, 5, dtype=torch.bool)
    masked = at_most(score, eligible, torch.tensor([1, 1, 0]))
    assert masked.int().tolist() == [[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [0] * 5]


def test_random_masks_are_nested_over_rho_and_follow_the_seed():
    eligible = torch.ones(1, 50, dtype=torch.bool)
    masks = [lowest(random_scores(eligible, (7,)), eligible, torch.tensor([n])) for n in (10, 20, 50)]
    assert (masks[0] <= masks[1]).all() and (masks[1] <= masks[2]).all()
    assert [int(m.sum()) for m in masks] == [10, 20, 50]
    assert not torch.equal(masks[0], lowest(random_scores(eligible, (8,)), eligible, torch.tensor([10])))
    question = ask(3, "?")
    assert sample_seed(0, question) == sample_seed(0, replace(question, length=99))
    seeds = {sample_seed(0, question), sample_seed(1, question), sample_seed(0, replace(question, doc_id=4))}
    seeds |= {sample_seed(0, replace(question, task="other")), sample_seed(0, replace(question, repeat=1))}
    assert len(seeds | {sample_seed(0, replace(question, repeat=2))}) == 6
    # What was answered before repeats were numbered comes out again.
    assert sample_seed(0, question) == int.from_bytes(hashlib.sha256(b"0|toy|3").digest()[:8], "big") >> 1


def decide(reads, *, kinds=None, dtype=torch.float64, **options):
    """Runs the decision on hand-made maps: reads[l] is one row of attention mass over the prompt."""
    maps = {Read(block): torch.tensor([row], dtype=dtype) for block, row in reads.items()}
    length = len(next(iter(reads.values())))
    kinds = torch.tensor([kinds or [0] + [1] * (length - 2) + [0]], dtype=torch.int8)
    blank = torch.zeros(1, length)
    prompt = Prompt(blank.long(), torch.zeros(1, length, 1, dtype=dtype), blank.bool(), kinds, blank.long(), (0,))
    (edit,) = Contrastive.from_options({**LAYERS, **options}).plan(SMALL).edits
    return edit.decide(maps, prompt)


MAPS = {  # text, four image tokens, text; block 3 is the post block
    0: [0.2, 0.1, 0.1, 0.1, 0.1, 0.4],
    1: [0.2, 0.4, 0.0, 0.0, 0.0, 0.4],  # the farthest from block 3
    2: [0.2, 0.0, 0.2, 0.0, 0.2, 0.4],
    3: [0.4, 0.0, 0.1, 0.2, 0.1, 0.2],
}


def test_the_farthest_candidate_and_the_least_changed_tokens_are_chosen():
    decision = decide(MAPS, rho=0.5)
    (log,) = decision.log
    assert log["pre_layer"] == 1 and log["post_layer"] == 3 and log["review_layer"] == 4
    assert log["distances"][1] == pytest.approx(1.0)
    assert log["distances"][0] == pytest.approx(math.sqrt(1 - (0.5 * math.sqrt(0.25) * 2 + math.sqrt(0.5) * 0.5)))
    assert (log["eligible_tokens"], log["masked_tokens"], log["masked_share"]) == (4, 2, 0.5)
    # IA = |p3 - p1| = [1, .25, .5, .25]: the second and the fourth image token changed least
    assert decision.values.tolist() == [[1.0, 1.0, 1e-9, 1.0, 1e-9, 1.0]]


def test_maps_are_logged_on_request_only():
    assert "maps" not in decide(MAPS, rho=0.5).log[0]
    maps = decide(MAPS, rho=0.5, log_maps=True).log[0]["maps"]
    assert list(maps["attention"]) == [0, 1, 2, 3]
    assert maps["attention"][1] == pytest.approx([1, 0, 0, 0])
    assert maps["attention"][3] == pytest.approx([0, 0.25, 0.5, 0.25])
    assert maps["score"] == pytest.approx([1, 0.25, 0.5, 0.25])
    assert maps["masked"] == [False, True, False, True]


def test_logged_maps_are_what_was_compared():
    kinds = [0, Kind.BASE, Kind.BASE, Kind.TILE, Kind.NEWLINE, 0]
    maps = decide(MAPS, kinds=kinds, rho=0.5, image_tokens="base", renormalise=False, log_maps=True).log[0]["maps"]
    assert maps["attention"][0] == pytest.approx([0.5, 0.5, 0, 0])
    assert maps["score"] == pytest.approx([0.4, 0.1, 0, 0])  # raw: |[0, .1] - [.4, 0]|
    assert maps["masked"] == [False, True, False, False]


@pytest.mark.parametrize(("mask_by", "blocks"), [("post", [3]), ("random", []), ("none", [])])
def test_a_control_logs_the_maps_it_read(mask_by, blocks):
    reads = {block: MAPS[block] for block in blocks} or {5: MAPS[3]}
    maps = decide(reads, rho=0.5, mask_by=mask_by, log_maps=True).log[0]["maps"]
    assert list(maps["attention"]) == blocks
    assert (maps["score"] is None) == (mask_by == "none")
    assert sum(maps["masked"]) == (0 if mask_by == "none" else 2)


def test_positive_contrast_ranks_by_the_signed_difference():
    # p3 - p1 = [-1, .25, .5, .25]
    assert decide(MAPS, rho=0.25, contrast="positive").values[0, 1] == 1e-9
    assert decide(MAPS, rho=0.25).values[0, 2] == 1e-9


def test_raw_maps_are_not_renormalised():
    maps = {**MAPS, 1: [0.2, 0.06, 0.0, 0.0, 0.3, 0.4]}  # image mass .36 against .4 at block 3
    normal, raw = (decide(maps, rho=0.25, renormalise=r, scope="1") for r in (True, False))
    # raw: |.0-.06| = .06 is least; renormalised: |0 - .167| = .167, |.25 - .833| = .58, so still the first
    assert normal.values[0].tolist() == raw.values[0].tolist()
    maps = {**MAPS, 1: [0.2, 0.02, 0.02, 0.05, 0.02, 0.4], 3: [0.2, 0.1, 0.08, 0.22, 0.0, 0.4]}
    normal, raw = (decide(maps, rho=0.25, renormalise=r, scope="1") for r in (True, False))
    # renormalised differences: |.25-.18|, |.2-.18|, |.55-.45|, |0-.18| -> second; raw: .08, .06, .17, .02 -> fourth
    assert (normal.values[0, 2], raw.values[0, 4]) == (1e-9, 1e-9)


def test_the_threshold_masks_more_than_its_share_and_says_so():
    (log,) = decide(MAPS, rho=0.25, contrast="positive", select="threshold").log
    assert (log["masked_tokens"], log["masked_share"]) == (1, 0.25)
    (log,) = decide(MAPS, rho=0.25, select="threshold").log  # IA [1, .25, .5, .25]: a tie
    assert (log["masked_tokens"], log["masked_share"]) == (2, 0.5)


def test_base_tokens_leave_tiles_and_newlines_out():
    kinds = [0, Kind.BASE, Kind.BASE, Kind.TILE, Kind.NEWLINE, 0]
    (log,) = decide(MAPS, kinds=kinds, rho=1.0, image_tokens="base").log
    assert (log["eligible_tokens"], log["masked_tokens"]) == (2, 2)
    (log,) = decide(MAPS, kinds=kinds, rho=1.0).log
    assert (log["eligible_tokens"], log["masked_tokens"]) == (4, 4)


def test_the_controls():
    post = decide(MAPS, rho=0.25, mask_by="post")
    assert post.values[0].tolist() == [1.0, 1e-9, 1.0, 1.0, 1.0, 1.0]  # p3 is lowest at the first image token
    assert (decide(MAPS, rho=1.0, mask_by="none").values == 1).all()
    assert decide(MAPS, rho=0.5, mask_by="random").log[0]["masked_tokens"] == 2
    reads = {
        m: Contrastive.from_options({**LAYERS, "mask_by": m}).plan(SMALL).reads for m in ("post", "none", "random")
    }
    assert reads == {"post": (Read(3),), "none": (), "random": ()}


@pytest.mark.parametrize(
    ("site", "there", "elsewhere"),
    [
        ("residual", 1e-9, 1.0),
        ("post_norm", 0.1, 1.0),
        ("kv", 0.1, 1.0),
        ("value", 0.1, 1.0),
        ("logit", math.log(0.1), 0.0),
        ("knockout", -math.inf, 0.0),
    ],
)
def test_every_site_has_its_strength_at_the_masked_tokens(site, there, elsewhere):
    values = decide(MAPS, rho=0.5, site=site).values[0].tolist()
    assert values == [elsewhere, elsewhere, there, elsewhere, there, elsewhere]
    engine_site = "scores" if site in ("logit", "knockout") else site
    assert Contrastive.from_options({**LAYERS, "site": site}).plan(SMALL).edits[0].site == engine_site


@pytest.mark.parametrize("review", [27, 28, 29, 30, 31])
def test_every_review_block_compares_with_the_block_before_it(review):
    plan = Contrastive.from_options({"review_layer": review}).plan(PAPER)
    assert plan.edits[0].block == review and max(read.block for read in plan.reads) == review - 1


def test_the_wcd_preset_on_hand_made_maps():
    # Fixed pre-block 2, raw signed difference p3 - p2 = [0, -.1, .2, -.1], negatives clipped to 0: a tie of three.
    (log,) = decide(MAPS, preset="wcd", scope="2", rho=0.25).log
    assert (log["pre_layer"], log["masked_tokens"], log["masked_share"]) == (2, 3, 0.75)
    assert log["distances"] == {2: pytest.approx(wcd_distance([0, 0.5, 0, 0.5], [0, 0.25, 0.5, 0.25]))}


def wcd_distance(p, q):
    """Jensen-Shannon divergence to base 2, as scipy has it (its distance is the root)."""
    return jensenshannon(p, q, base=2) ** 2


@pytest.mark.parametrize(("rho", "masked"), [(0.0, 0), (0.2, 115), (0.5, 288), (0.29999999999999999, 172), (1.0, 576)])
def test_the_number_of_masked_tokens_is_the_floor(rho, masked):
    row = [0.0, *torch.linspace(0.1, 1, 576).tolist(), 0.0]
    flat = [1 / 578] * 578
    (log,) = decide({0: flat, 1: flat, 2: flat, 3: row}, rho=rho).log
    assert log["masked_tokens"] == masked


def test_wcd_preset_and_what_is_given_beside_it():
    wcd = Contrastive.from_options({"preset": "wcd"})
    assert (wcd.distance, wcd.scope, wcd.contrast, wcd.select) == ("jsd", (2,), "positive", "threshold")
    assert (wcd.renormalise, wcd.lam, wcd.image_tokens, wcd.rho) == (False, 1e-9, "base", 0.2)
    assert Contrastive.from_options({"preset": "wcd", "distance": "hellinger"}).distance == "hellinger"
    assert Contrastive.from_options({"preset": "paper"}) == Contrastive()


# ---- layers ---------------------------------------------------------------------------------------------------------
def test_the_papers_blocks_are_the_defaults_on_its_trunk():
    plan = Contrastive().plan(PAPER)
    assert [r.block for r in plan.reads] == [2, 4, 8, 11, 12, 13, 28]
    assert [(e.block, e.site) for e in plan.edits] == [(29, "residual")]


@pytest.mark.parametrize(
    ("options", "blocks"),
    [
        ({"scope": "shallow"}, [*range(16), 28]),
        ({"scope": "deep"}, list(range(16, 29))),
        ({"scope": "all"}, list(range(29))),
        ({"scope": "5:3"}, [3, 5, 28]),
        ({"scope": "7"}, [7, 28]),
        ({"scope": "all", "post_layer": "20"}, list(range(21))),
        ({"review_layer": 31}, [2, 4, 8, 11, 12, 13, 30]),
    ],
)
def test_scopes(options, blocks):
    assert [r.block for r in Contrastive.from_options(options).plan(PAPER).reads] == blocks


@pytest.mark.parametrize(
    ("trunk", "options", "message"),
    [
        (
            SMALL,
            {},
            r"6-block 'llama'. Name its blocks \(0 to 5\), e.g. review_layer=3,scope=2:4, or give profile=FILE.json",
        ),
        (SMALL, {"review_layer": 4}, "Name its blocks"),
        (PAPER, {"review_layer": 32}, r"review_layer: the checkpoint has no block 32. Allowed: 0 to 31"),
        (PAPER, {"scope": "2:40"}, r"scope: the checkpoint has no block 40. Allowed: 0 to 31"),
        (
            PAPER,
            {"post_layer": 29},
            "post_layer: block 29 is read, but does not lie below the review block 29.*0 to 28",
        ),
        (PAPER, {"scope": "2:30"}, "scope: block 30 is read, but does not lie below"),
        (replace(PAPER, vocabulary=128320), {}, "known only for .* on a 32-block LLaMA"),  # LLaMA-3
        (PAPER, {"scope": "28"}, "leaves no candidate block beside post_layer=28"),
        (PAPER, {"scope": "deep", "post_layer": 16}, "leaves no candidate"),
        (PAPER, {"rho": 1.5}, "rho=1.5 is not a share. Allowed: 0 to 1"),
        (PAPER, {"rho": "lots"}, "rho=lots is not allowed. Allowed: a number"),
        (PAPER, {"lam": 2}, "lam=2.0 does not scale down. Allowed: 0 to 1"),
        (PAPER, {"site": "knockout", "lam": 0.1}, "lam=0.1 has no meaning at site=knockout"),
        (PAPER, {"site": "logit", "lam": 0}, "Take site=knockout"),
        (PAPER, {"site": "keys"}, "site=keys is not allowed. Allowed: residual, post_norm, kv, value, logit, knockout"),
        (
            PAPER,
            {"scope": "2,4"},
            "scope=2,4 is not allowed. Allowed: fusion, shallow, deep, all or whole numbers joined",
        ),
        (PAPER, {"renormalise": "yes"}, "renormalise=yes is not allowed. Allowed: true, false"),
        (PAPER, {"review_layr": 29}, "Unknown option 'review_layr'. Did you mean 'review_layer'"),
        (PAPER, {"preset": "wdc"}, "preset=wdc is not allowed. Allowed: paper, wcd"),
    ],
)
def test_what_is_refused(trunk, options, message):
    with pytest.raises(OptionError, match=message):
        Contrastive.from_options(options).plan(trunk)


def write_profile(folder, **changes):
    profile = {"schema": 1, "model_type": "llava", "num_blocks": 6, "fusion": [0, 2], "post": 3, "review": 5}
    file = folder / "profile.json"
    file.write_text(json.dumps({**profile, "rule": "", "checkpoint_sha": "", **changes}))
    return {"profile": str(file)}


def test_a_profile_names_the_blocks_and_what_is_given_wins(tmp_path):
    plan = Contrastive.from_options(write_profile(tmp_path)).plan(SMALL)
    assert plan.settled == {"scope": (0, 2), "post_layer": 3, "review_layer": 5, "lam": 1e-9}, "no path says that"
    assert ([r.block for r in plan.reads], plan.edits[0].block) == ([0, 2, 3], 5)
    plan = Contrastive.from_options({**write_profile(tmp_path), "review_layer": 4, "scope": "1"}).plan(SMALL)
    assert ([r.block for r in plan.reads], plan.edits[0].block) == ([1, 3], 4)
    plan = Contrastive.from_options(write_profile(tmp_path, post=None)).plan(SMALL)
    assert [r.block for r in plan.reads] == [0, 2, 4]


def test_a_profile_without_a_review_block_leaves_it_to_the_user(tmp_path):
    plan = Contrastive.from_options({**write_profile(tmp_path, review=None, post=None), "review_layer": 4}).plan(SMALL)
    assert ([r.block for r in plan.reads], plan.edits[0].block) == ([0, 2, 3], 4)


def test_profiles_that_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read as JSON"):
        Contrastive(profile=str(tmp_path / "none.json")).plan(SMALL)
    with pytest.raises(InputError, match="is of a 32-block 'llava', but the checkpoint is a 6-block 'llava'"):
        Contrastive.from_options(write_profile(tmp_path, num_blocks=32)).plan(SMALL)
    with pytest.raises(InputError, match="has schema 2"):
        Contrastive.from_options(write_profile(tmp_path, schema=2)).plan(SMALL)
    with pytest.raises(OptionError, match="no review block was found"):
        Contrastive.from_options(write_profile(tmp_path, review=None)).plan(SMALL)


# ---- on models ------------------------------------------------------------------------------------------------------
def prefill(family, questions, plan):
    prompt = Engine(family, load_method("vanilla")(), RunOptions()).prompt(family.encode(questions))
    run = Run(family, plan, prompt, 1)
    with run.attached():
        return run.prefill(), run


def plan_of(family, **options):
    return Contrastive.from_options({**LAYERS, **options}).plan(family.trunk)


OPTIONS = [
    *({"site": site} for site in SITES),
    {"preset": "wcd", "scope": "0:1"},
    {"distance": "jsd"},
    {"contrast": "positive"},
    {"select": "threshold"},
    {"renormalise": False},
    {"image_tokens": "base"},
    {"lam": 1e-3},
    {"mask_by": "random"},
    {"mask_by": "post"},
    {"scope": "all"},
    {"post_layer": 2, "scope": "0:1"},
    {"review_layer": 5},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_bites_on_the_logits(family, options):
    vanilla, _ = prefill(family, mixed_questions(), Plan())
    edited, _ = prefill(family, mixed_questions(), plan_of(family, **{"rho": 0.5, **options}))
    assert (vanilla - edited).abs().max() > 1e-6


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("off", [{"rho": 0}, {"lam": 1}, {"mask_by": "none"}, "text only"], ids=str)
def test_off_is_off(family, site, off):
    """Invariant 1, with the edit installed: state edits bit-identical, score edits to rounding."""
    if site == "knockout" and off == {"lam": 1}:
        return  # knockout takes no lambda: that it is refused is tested above
    questions = (
        [ask(i, text) for i, text in enumerate(("Two plus two?", "Why?"))] if off == "text only" else mixed_questions()
    )
    options = {} if off == "text only" else off
    plan = plan_of(family, **{"rho": 0.5, "site": site, **options})
    vanilla, _ = prefill(family, questions, Plan())
    edited, run = prefill(family, questions, plan)
    assert run.part.decisions, "the edit was short-circuited"
    if site in ("logit", "knockout"):
        assert torch.allclose(vanilla, edited, rtol=1e-12, atol=1e-12)
    else:
        assert torch.equal(vanilla, edited)


@pytest.mark.parametrize("site", SITES)
def test_off_is_off_in_float32_answers(site):
    family = make_family("llava", dtype=torch.float32)
    vanilla, _ = prefill(family, mixed_questions(), Plan())
    edited, _ = prefill(family, mixed_questions(), plan_of(family, rho=0, site=site))
    assert (vanilla - edited).abs().max() <= 1e-5 * vanilla.abs().max()
    plain = answers(family, "vanilla", {}, 8)
    assert [a.text for a in answers(family, "contrastive", {**LAYERS, "rho": 0, "site": site}, 8)] == [
        a.text for a in plain
    ]


def answers(family, method, options, batch_size, questions=None, new=6):
    engine = Engine(family, load_method(method).from_options(options), RunOptions(batch_size=batch_size), method)
    return engine.answer([Request(q, Generation(max_new_tokens=new)) for q in questions or mixed_questions()])


@pytest.mark.parametrize(
    "options", [{"site": site} for site in SITES] + [{"mask_by": "random"}, {"preset": "wcd", "scope": "0"}], ids=str
)
def test_a_batch_answers_as_its_samples_alone(any_family, options):
    """Invariant 2: left-padded, mixed lengths, mixed d."""
    options = {**LAYERS, "rho": 0.6, **options}
    eight, one = (answers(any_family, "contrastive", options, size) for size in (8, 1))
    assert [a.text for a in eight] == [a.text for a in one]
    for a, b in zip(eight, one, strict=True):
        assert {**a.log, "distances": None} == {**b.log, "distances": None}
        assert a.log.get("distances", {}) == pytest.approx(b.log.get("distances", {}))


def test_residual_scaling_by_a_tenth_leaves_the_review_blocks_attention(family):
    """Pre-norm: why the default lambda at `residual` is 1e-9."""
    soft = plan_of(family, lam=0.1, rho=1.0)
    reads = tuple(Read(b) for b in range(6))
    _, plain = prefill(family, mixed_questions(), Plan(reads))
    _, scaled = prefill(family, mixed_questions(), Plan(reads, soft.edits))
    change = {b: (plain.reads[Read(b)] - scaled.reads[Read(b)]).abs().sum(-1).max().item() for b in (3, 4, 5)}
    assert change[3] == 0 and change[4] < 1e-3 < 0.05 < change[5]


# ---- the naive reference --------------------------------------------------------------------------------------------
def naive_mask(maps, image, rho):
    """Equations 1 to 4 for one sample, in plain Python floats: (i*, distances, masked positions)."""
    p = {b: [maps[b][j] / sum(maps[b][i] for i in image) for j in image] for b in (0, 1, 2, 3)}
    h = {
        b: math.sqrt(sum((math.sqrt(x) - math.sqrt(y)) ** 2 for x, y in zip(p[b], p[3], strict=True)) / 2)
        for b in (0, 1, 2)
    }
    best = max(h, key=h.get)
    ia = [abs(x - y) for x, y in zip(p[3], p[best], strict=True)]
    ranked = sorted(range(len(image)), key=lambda j: (ia[j], j))
    return best, h, [image[j] for j in ranked[: math.floor(rho * len(image) + 1e-9)]]


def hooked(family, site, masked):
    """Hooks that edit block 4 of one sample's run at one site, in the naive way."""
    block = family.blocks[4]

    def scale(output):
        if output.shape[1] > 1:  # the prefill
            output = output.clone()
            output[:, masked] *= {"residual": 1e-9}.get(site, 0.1)
        return output

    def bias(module, args, kwargs):
        mask = kwargs["attention_mask"].clone()
        text = [i for i in range(mask.shape[2]) if mask.shape[2] == 1 or i not in family_image]
        for query in text:
            mask[:, :, query, masked] += -1e300 if site == "knockout" else math.log(0.1)
        return args, {**kwargs, "attention_mask": mask}

    family_image = hooked.image
    if site == "residual":
        return [block.register_forward_pre_hook(lambda m, a: (scale(a[0]), *a[1:]))]
    if site == "post_norm":
        return [block.input_layernorm.register_forward_hook(lambda m, a, out: scale(out))]
    if site in ("kv", "value"):
        modules = [block.self_attn.v_proj] + ([block.self_attn.k_proj] if site == "kv" else [])
        return [m.register_forward_hook(lambda m, a, out: scale(out)) for m in modules]
    return [block.self_attn.register_forward_pre_hook(bias, with_kwargs=True)]


@pytest.mark.parametrize("site", SITES)
def test_the_naive_reference_chooses_masks_and_answers_alike(any_family, site):
    """Invariant 3, on checkpoints whose distances lie in 0.1..0.9."""
    questions = mixed_questions()[::2]
    mine = answers(any_family, "contrastive", {**LAYERS, "rho": 0.6, "site": site}, 8, new=12)[::2]
    decode = any_family.processor.tokenizer.decode
    changed = 0
    for question, answer in zip(questions, mine, strict=True):
        ids = any_family.encode([question]).input_ids[0]
        image = [i for i, t in enumerate(ids.tolist()) if t == any_family.trunk.image_token_id]
        maps = [row[0].tolist() for row in attention_of_last_token(any_family, [question])]
        best, distances, masked = naive_mask(maps, image, 0.6)
        assert all(0.1 < h < 0.9 for h in distances.values())
        assert answer.log["pre_layer"] == best
        assert answer.log["distances"] == pytest.approx(distances, abs=1e-9)
        assert answer.log["masked_tokens"] == len(masked)
        with eager(any_family):
            plain = generate(any_family, [question], max_new_tokens=12)[0]
            hooked.image = set(image)
            handles = hooked(any_family, site, masked)
            reference = generate(any_family, [question], max_new_tokens=12)[0]
            for handle in handles:
                handle.remove()
        assert answer.text == decode(reference).strip()
        changed += plain != reference
    assert changed, "the edit changed no answer, so equal answers would prove nothing"
