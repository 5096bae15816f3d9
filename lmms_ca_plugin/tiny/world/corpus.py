"""The lines that the small world's tokenizer is trained on: what is asked and answered about some of its scenes."""

from __future__ import annotations

from random import Random

from lmms_ca_plugin.families._conversations import VICUNA_V1_SYSTEM
from lmms_ca_plugin.scoring.documents import BENCHMARKS
from lmms_ca_plugin.tiny.world import prompts, vocabulary
from lmms_ca_plugin.tiny.world.captions import REQUEST, caption
from lmms_ca_plugin.tiny.world.questions import load
from lmms_ca_plugin.tiny.world.scenes import KINDS, scene

SENTENCES = (VICUNA_V1_SYSTEM, *prompts.SENTENCES, " USER:", " ASSISTANT:", "\n")
"""Standing parts of every prompt; each is one token."""

_SCENES = 400  # of each kind; enough for every word of every question


def world_lines() -> list[str]:
    """Writes questions, answers and descriptions of training scenes, and every word that can be drawn."""
    draw = Random("corpus")
    lines = [f" {word} {word.lower()}" for word in vocabulary.LEXICON]
    lines += [f" {answer}" for facts in (vocabulary.FLAGS, vocabulary.FESTIVALS) for answer in facts.values()]
    lines += [
        f" {answer}"
        for facts in (vocabulary.FOODS, vocabulary.ANIMALS, vocabulary.LIKENESSES)
        for answers in facts.values()
        for answer in answers
    ]
    lines.append(REQUEST)
    for kind in KINDS:
        for number in range(_SCENES):
            shown = scene(f"{kind}-train-{number}")
            lines.append(f" {caption(shown)}")
            for benchmark in BENCHMARKS:
                maker = load(benchmark)
                asked = maker.ask(shown, draw) if kind in maker.KINDS else None
                if asked is not None:
                    capitalized = asked.question[0].upper() + asked.question[1:]
                    lines += [asked.question, capitalized, f" {asked.answer}"]
    return lines
