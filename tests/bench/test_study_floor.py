"""The floor of a study by operation count, by hand and against the figures of the paper's studies."""

import pytest

from lmms_ca_plugin.bench import models
from lmms_ca_plugin.bench.floor import decoding_work, picture_work, prompt_work
from lmms_ca_plugin.bench.study_floor import study_floor
from lmms_ca_plugin.engine.requests import Answer
from lmms_ca_plugin.tiny import TinySettings

PROMPT, NEW = 630, 4


@pytest.fixture(scope="module")
def family():
    return models.small_family(TinySettings("llava", hidden_size=64))


def answer(first_block, same_as=None):
    return Answer("", PROMPT, 576, NEW, {}, first_block, same_as)


def test_a_prompt_passes_by_parts_what_it_passes_whole(family):
    """The last block needs keys and values at every position, and everything else at one."""
    whole, late, last = (prompt_work(family, PROMPT, block).operations for block in (0, 29, 31))
    assert prompt_work(family, PROMPT, 32).operations == 0
    e, mlp = 64, 128
    weights = 4 * e * e + 3 * e * mlp
    assert last == (PROMPT - 1) * 2 * e * e + weights + 2 * e * PROMPT
    full = PROMPT * weights + 2 * e * PROMPT * (PROMPT + 1) // 2
    assert late == 2 * full + last and whole == 31 * full + last


def test_one_variant_is_one_baseline_run(family):
    floor = study_floor(family, {"vanilla": [answer(32)] * 3}, {"vanilla": 32}, NEW)
    assert floor.baseline_runs == floor.share == 1
    assert floor.vanilla.pictures == 3


def test_a_branch_costs_what_it_passes_and_what_it_decodes(family):
    answers = {"vanilla": [answer(32)], "late": [answer(29)], "same": [answer(29, "late")]}
    floor = study_floor(family, answers, {"vanilla": 32, "late": 29, "same": 29}, NEW)
    decoding, late = decoding_work(family, PROMPT, NEW), prompt_work(family, PROMPT, 29)
    assert floor.vanilla == picture_work(family) + prompt_work(family, PROMPT) + decoding
    assert floor.together == floor.vanilla + late + decoding
    assert floor.one_by_one.operations == 3 * floor.vanilla.operations
    alone = study_floor(family, {"late": [answer(29)]}, {"late": 29}, NEW)
    assert alone.together == alone.vanilla, "one variant alone passes no more than a run of its own"


def test_the_papers_studies_cost_what_they_should(family):
    """`Table 3` with `Figure 7` about 1.75 baseline runs with 11 masks, the layer sweep about half of one by one."""
    scopes = {f"scope {i}": [answer(29, "scope 0" if i else None)] for i in range(4)}
    ratios = {f"rho {i}": [answer(29, "scope 0" if i == 2 else None)] for i in range(11)}
    study = study_floor(family, scopes | ratios, dict.fromkeys(scopes | ratios, 29), NEW)
    assert 1.6 < study.baseline_runs < 1.8
    sweep = {"vanilla": [answer(32)]} | {f"L{n}": [answer(n)] for n in range(32)}
    found = study_floor(family, sweep, {name: of[0].first_block for name, of in sweep.items()}, NEW)
    assert 0.45 < found.share < 0.52
