"""Short ways to run a method on a small model, shared by the tests of methods."""

from __future__ import annotations

from dataclasses import replace

import torch

from lmms_ca_plugin.engine.engine import Engine
from lmms_ca_plugin.engine.generation import Generation
from lmms_ca_plugin.engine.requests import Request, RunOptions
from lmms_ca_plugin.engine.run import Run
from lmms_ca_plugin.engine.selfcheck import complete
from lmms_ca_plugin.methods import load_method


def prompt_of(family, questions):
    """A batch ready for block 0, seeded."""
    with torch.inference_mode():
        prompt = family.embed(family.encode(questions))
    return replace(prompt, seeds=tuple(range(len(questions))))


def plan_of(family, name, options):
    return complete(family, load_method(name).from_options(options).plan(family.trunk))


def entering(family, plan, prompt, block):
    """The hidden states (b, s, d) that enter a block in the prefill."""
    seen = []
    handle = family.blocks[block].register_forward_pre_hook(lambda m, args: seen.append(args[0].clone()))
    run = Run(family, plan, prompt, 1)
    with run.attached():
        run.prefill()
    handle.remove()
    return seen[0]


def forced(family, plan, questions, tokens):
    """Scores (steps, b, v) of a run that is fed given tokens (n, b), and the run itself."""
    run = Run(family, plan, prompt_of(family, questions), len(tokens) + 1)
    with run.attached():
        scores = [run.prefill(), *(run.step(torch.as_tensor(row)) for row in tokens)]
    return torch.stack(scores), run


def answers(family, questions, name, options=None, batch_size=1, **settings):
    """What the engine answers."""
    engine = Engine(family, load_method(name).from_options(options or {}), RunOptions(batch_size=batch_size), name)
    return engine.answer([Request(question, Generation(**settings)) for question in questions])


def texts(*given, **settings):
    return [answer.text for answer in answers(*given, **settings)]
