"""Small LLaVA checkpoints whose fusion and review blocks are known, because their weights were made by hand.

Run it as a script to see how often `find_profile` finds what was planted: `python tests/planted.py 20`.

Every checkpoint is a true `LlavaForConditionalGeneration` of 8 blocks and 16 image tokens that names a picture's colour
or, in a control, a word of the question. Its residual stream is divided among a few orthonormal directions, drawn by
the seed; the first head of a block does one job or none, the other heads and the MLPs are random and write where only
the answer's noise is read, so that masking any block flips some answers.

* Reading, at block `reads`: the last prompt token attends to the image tokens (or, in a control, to the words of the
  question) and takes their code over. No later block reads it again. So zeroing at any block up to `reads` takes the
  picture away for good: nothing that stands before a picture knows it, hence nothing can write it back. What the rule
  must find below L/2 is therefore all of 0..reads, and nothing above.
* Passing on, at block `passes`: the head that names the answer reads a copy that this block makes of the code, from the
  last prompt token's own value. If the checkpoint is `fragile`, its own score is 0 and all others' are far below, so
  zeroed image tokens, whose score is 0 as well, take most of the softmax mass; a standing default then wins. If it is
  not, its own score is far above 0 and zeroed tokens take nothing.
* Restoring, at the block before: positions that hold no question of their own take the mean of what they see, which at
  a zeroed image token are the words before the picture; their direction brings its score at the next block down again.
  So zeroing at `passes` - 1 does no harm, zeroing at `passes` does, and zeroing later comes too late: by the rule, a
  review block. A drop above that of the block before cannot come from the picture (what `passes` could learn of it, it
  could learn as well where only the block before was spared), so every review block of the rule is of this kind; the
  knockout curve, where nothing is zeroed, is flat here.

Axis letters: b samples, e hidden size, o colours, m background directions.
"""

import sys
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from lmms_ca_plugin.engine.engine import Engine
from lmms_ca_plugin.engine.generation import Generation
from lmms_ca_plugin.engine.requests import Request, RunOptions
from lmms_ca_plugin.families import load_family
from lmms_ca_plugin.families._contract import Message, Question
from lmms_ca_plugin.methods.layermask import LayerMask
from lmms_ca_plugin.methods.vanilla import Vanilla
from lmms_ca_plugin.results.layer_scores import LayerScores, VariantScores
from lmms_ca_plugin.results.profiles import ProfileRules, find_profile
from lmms_ca_plugin.tiny import TinySettings, build_model, build_processor

BLOCKS = 8
COLOURS = {"red": (190, 50, 40), "navy": (40, 50, 130), "peach": (235, 190, 150), "black": (45, 45, 45)}
QUESTIONS = ("Is it {} or not?", "Which color is it? Answer {} or the like.")
NEW_TOKENS = 3
SLOWEST = 7  # of a head's 16 dimensions: its rotary angle is below 0.04 over any prompt here, so content decides


@dataclass(frozen=True)
class Plant:
    """What is planted.

    Attributes:
        seed: Of directions, random weights, pictures and the halves.
        reads: The block at which the last prompt token reads.
        passes: The block at which the answer is passed on.
        picture: Whether the picture is read, or the question.
        fragile: Whether zeroed image tokens disturb the passing on.
    """

    seed: int
    reads: int
    passes: int
    picture: bool = True
    fragile: bool = True

    @property
    def fusion(self):
        """What the rule must find below L/2."""
        return tuple(range(self.reads + 1)) if self.picture else ()

    @property
    def review(self):
        """What the rule must find from 3L/4 on."""
        return self.passes if self.fragile else None


def draw(seed, picture=True, fragile=True):
    """Draws the two blocks: any below L/2, any from 3L/4 on."""
    generator = np.random.default_rng(seed)
    reads, passes = generator.integers(BLOCKS // 2), generator.integers(3 * BLOCKS // 4, BLOCKS)
    return Plant(seed, int(reads), int(passes), picture, fragile)


class Directions:
    """The residual stream's parts, as orthonormal directions (e,), (o, e) and (m, e)."""

    def __init__(self, size, generator):
        basis = torch.linalg.qr(torch.randn(size, size, generator=generator)).Q  # (e, e)
        self.text, self.image, self.word, self.ask, self.said = basis[:5]
        colours = len(COLOURS)
        self.code, self.heard, self.passed = basis[5 : 5 + 3 * colours].unflatten(0, (3, colours))
        self.background = basis[5 + 3 * colours :]


@torch.no_grad()
def make(plant):
    """Makes a checkpoint: its family, ready for the engine."""
    settings = TinySettings("llava", seed=plant.seed, num_blocks=BLOCKS, image_size=56, query_key_gain=0.5)
    model, processor = build_model(settings), build_processor(settings)
    generator = torch.Generator().manual_seed(plant.seed)
    at = Directions(settings.hidden_size, generator)
    words = processor.tokenizer.convert_tokens_to_ids([f"▁{colour}" for colour in COLOURS])
    colon = processor.tokenizer.convert_tokens_to_ids(":")  # prompts end in `ASSISTANT:`
    trunk = model.model.language_model

    def noise(rows, scale):
        return scale * torch.randn(rows, len(at.background), generator=generator) @ at.background  # (rows, e)

    embedding = trunk.embed_tokens.weight  # (vocabulary, e)
    embedding.copy_(at.text + noise(len(embedding), 0.07))
    embedding[words] += 1.5 * at.word + 1.5 * at.code + 2 * at.said
    embedding[colon] = 2 * at.ask
    for block in trunk.layers:
        attention, mlp = block.self_attn, block.mlp
        for weight in (attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight):
            weight[: attention.head_dim] = 0  # (e, e) by output: the first head
        into = at.background.T @ at.background  # (e, e)
        attention.o_proj.weight.copy_(0.08 * into @ attention.o_proj.weight)
        attention.o_proj.weight[:, : attention.head_dim] = 0
        mlp.down_proj.weight.copy_(0.08 * into @ mlp.down_proj.weight)
    colours = range(len(COLOURS))
    # Words are few beside 16 image tokens: to read them alone, whatever the noise of the others, takes a sharper look.
    sharp, at_what = (0.8, at.image) if plant.picture else (1.0, at.word)
    _head(trunk, plant.reads, sharp * at.ask, at_what, at.code, 0.36 * at.heard)
    own = 0.0 if plant.fragile else 1.5
    keys = own * at.heard.sum(0) - at.text - 1.5 * at.image
    _head(trunk, plant.passes, at.ask, keys, at.heard, (1.2 if plant.fragile else 0.6) * at.passed)
    _head(trunk, plant.passes - 1, at.ask, 1.5 * at.ask, at.text[None], 0.4 * at.image[None])
    head = model.lm_head.weight  # (vocabulary, e)
    head.zero_()
    head[words] = at.passed + noise(len(colours), 0.4)
    head[words[0]] += 0.6 * at.ask
    head[processor.tokenizer.eos_token_id] = 2 * at.said
    family = load_family("llava")(model, processor)
    _look(family, at, generator, plant.seed)
    family.encode = _remembering(family.encode)
    return family


def _remembering(encode):
    """Every variant asks the same questions; to render them once saves a third of a sweep's time."""
    kept = {}

    def remembered(questions):
        key = tuple(question.name for question in questions)
        if key not in kept:
            kept[key] = encode(questions)
        return kept[key]

    return remembered


def _head(trunk, block, query, key, read, written):
    """Has a block's first head take rows of values `read` (o, e) over as `written` (o, e)."""
    attention = trunk.layers[block].self_attn
    attention.q_proj.weight[SLOWEST] = query
    attention.k_proj.weight[SLOWEST] = key
    attention.v_proj.weight[: len(read)] = read
    attention.o_proj.weight[:, : len(read)] = written.T


def _look(family, at, generator, seed):
    """Fits the projector's second layer: an image token says that it is one, and which colour it has."""
    projector, shown, hidden = family.model.model.multi_modal_projector, pictures(seed + 1000, 80), []
    hook = projector.linear_2.register_forward_pre_hook(lambda _module, inputs: hidden.append(inputs[0]))
    family.embed(family.encode([ask(i, "?", picture) for i, (picture, _) in enumerate(shown)]))
    hook.remove()
    (states,) = hidden  # (pictures, tokens, e)
    tokens = states.shape[1]
    states = states.flatten(0, 1).double()  # (pictures * tokens, e)
    colours = torch.tensor([list(COLOURS).index(colour) for _, colour in shown]).repeat_interleave(tokens)
    wanted = torch.nn.functional.one_hot(colours, len(COLOURS)).double()  # (pictures * tokens, o)
    mean, often = states.mean(0), wanted.mean(0)
    centred = states - mean
    ridge = 1e-3 * len(states) * torch.eye(states.shape[1], dtype=torch.float64)  # grainy pictures, few of them
    fit = torch.linalg.solve(centred.T @ centred + ridge, centred.T @ (wanted - often))  # (e, o)
    signal = 1.5 * at.code.T.double() @ fit.T  # (e, e)
    random = 0.08 * torch.randn(len(at.background), len(fit), generator=generator).double() / states.std()
    projector.linear_2.weight.copy_(signal + at.background.T.double() @ random / len(fit) ** 0.5)
    projector.linear_2.bias.copy_(1.5 * at.image + 1.5 * often @ at.code.double() - signal @ mean)


def pictures(seed, number):
    """Draws pictures of one colour each, unevenly lit and grainy: (picture, colour) pairs."""
    generator, drawn = np.random.default_rng(seed), []
    for name in generator.choice(list(COLOURS), number):
        pixels = np.array(COLOURS[name]) + generator.normal(0, 18, 3) + generator.normal(0, 25, (56, 56, 3))
        drawn.append((Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), str(name)))
    return drawn


def ask(number, text, picture):
    return Question("planted", "test", number, lambda: (Message("user", text, (picture,)),), len(text))


def sweep(family, plant, number=64, modes=("zero",)):
    """Answers two questions on every picture, vanilla and masked at every block, by the engine."""
    generator = np.random.default_rng(plant.seed)
    asked, right, clusters = [], [], []
    for i, (picture, colour) in enumerate(pictures(plant.seed, number)):
        for text in QUESTIONS:
            word = str(generator.choice(list(COLOURS)))
            asked.append(Request(ask(len(asked), text.format(word), picture), Generation(max_new_tokens=NEW_TOKENS)))
            right.append(colour if plant.picture else word)
            clusters.append(f"picture {i}")

    def variant(method):
        answers = Engine(family, method, RunOptions(batch_size=len(asked)), is_main=False).answer(asked)
        return VariantScores(
            np.array([a.text == r for a, r in zip(answers, right, strict=True)], dtype=float),
            np.array([a.new_tokens == NEW_TOKENS for a in answers]),
        )

    curves = {mode: tuple(variant(LayerMask(block, mode)) for block in range(BLOCKS)) for mode in modes}
    return LayerScores(tuple(clusters), variant(Vanilla()), **curves)


def profile(plant, modes=("zero",)):
    """Makes a checkpoint, sweeps it and finds its profile."""
    return find_profile(sweep(make(plant), plant, modes=modes), "llava", "", ProfileRules(seed=plant.seed))


def main(seeds):
    kinds = {"both": {}, "fusion alone": {"fragile": False}, "neither": {"picture": False, "fragile": False}}
    for kind, options in kinds.items():
        hits = 0
        for seed in range(seeds):
            plant = draw(seed, **options)
            found = profile(plant)
            hit = (found.layers.fusion, found.layers.review) == (plant.fusion, plant.review)
            hits += hit
            drops = " ".join(f"{100 * at.zero.drop:.0f}" for at in found.curves)
            sys.stdout.write(
                f"{kind}, seed {seed}: planted {plant.fusion} {plant.review}, found {found.layers.fusion} "
                f"{found.layers.review}; vanilla {100 * found.calibration.vanilla.mean:.0f}, drops {drops}\n"
            )
            sys.stdout.flush()
        sys.stdout.write(f"{kind}: {hits} of {seeds}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
