"""A family with its weights on another device, and what every method answers there."""

from __future__ import annotations

import copy

from accelerate import dispatch_model
from cases import CASES
from toys import ask, mixed_questions

from lmms_ca_plugin.engine.branched import Branched
from lmms_ca_plugin.engine.engine import Engine
from lmms_ca_plugin.engine.generation import Generation
from lmms_ca_plugin.engine.requests import RunOptions
from lmms_ca_plugin.methods import load_method

EXAMPLES = {
    name: [load_method(name).from_options(options) for options in case.examples] for name, case in CASES.items()
}
VANILLA = load_method("vanilla")()
TOGETHER = {f"{n} {i}": m for n, of in EXAMPLES.items() for i, m in enumerate(of) if not m.makes_inputs}
QUESTIONS = [mixed_questions()[0], ask(1, "What is two plus two?")]
ALONE = [
    *[(method, {}) for method in EXAMPLES["vicrop"][1:]],  # with gradients
    (EXAMPLES["dola"][0], {"temperature": 1.5, "top_p": 0.9}),
    (EXAMPLES["contrastive"][0], {"num_beams": 2}),
]


def moved(family, where):
    """The same family with its weights elsewhere."""
    model = copy.deepcopy(family.model)
    if where == "spread":
        blocks = family.trunk.num_blocks
        places = {f"model.language_model.layers.{i}": int(i >= blocks // 2) for i in range(blocks)}
        vision = {f"model.{name}": 0 for name, _ in model.model.named_children() if name != "language_model"}
        ends = {**vision, "model.language_model.embed_tokens": 0}
        rest = {"model.language_model.norm": 1, "model.language_model.rotary_emb": 0, "lm_head": 1}
        newline = {"model.image_newline": 0} if hasattr(model.model, "image_newline") else {}  # no module
        model = dispatch_model(model, {**ends, **places, **rest, **newline})
    else:
        model.to(where)
    return type(family)(model, family.processor, family.inputs)


def alone(family, method, questions, settings):
    front = Engine(family, method, RunOptions())
    return [(a.text, a.log) for a in front.answer_batch(questions, Generation(max_new_tokens=3, **settings))]


def together(family):
    answers = Branched(family, TOGETHER, RunOptions()).answer_batch(QUESTIONS, Generation(max_new_tokens=3))
    return {name: [(a.text, a.log) for a in of] for name, of in answers.items()}
