"""One picture, one question, every method: where the model looks, what is masked or cropped, and what is answered.

Source: Figure 1 of Song, Li, Yu, "Where Does Vision Meet Language?".
Rule: nothing is computed a second time for the eye. Attention is what the engine reads (`studies/looking.py`); IA and
the mask are what contrastive ranked by and masked, from its own record (`log_maps`); the box is the one ViCrop cut out.
Maps are in units of equal attention: 1 is what each image token would get if all got the same; in IA, each that may be
masked. IA of raw attention mass is shown as it was compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from lmms_ca_plugin.engine.fingerprint import check_profiles
from lmms_ca_plugin.engine.generation import Generation
from lmms_ca_plugin.engine.load import CheckpointOptions, InputOptions, describe, load
from lmms_ca_plugin.errors import InputError
from lmms_ca_plugin.families._cells import Cells
from lmms_ca_plugin.families._contract import Message, Question, Trunk
from lmms_ca_plugin.figures.explanation import EQUAL, Explanation, Map, Mask, Rectangle, Said
from lmms_ca_plugin.methods._contract import Method
from lmms_ca_plugin.methods.contrastive import Contrastive
from lmms_ca_plugin.studies import every_method
from lmms_ca_plugin.studies.every_method import Outcome
from lmms_ca_plugin.studies.looking import Looking, look

SCHEMA = 1


@dataclass(frozen=True)
class ExplainOptions:
    """On what, and what is to be shown.

    Attributes:
        checkpoint: Which checkpoint, and how it is held.
        inputs: How prompt and picture are prepared.
        given: Options by method, as the user set them; on a bundled checkpoint they are added to its own.
        layers: The blocks whose attention is shown; None takes the two that contrastive compared, and the last.
        max_new_tokens: The most tokens of an answer.
    """

    checkpoint: CheckpointOptions = field(default_factory=CheckpointOptions)
    inputs: InputOptions = field(default_factory=InputOptions)
    given: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    layers: tuple[int, ...] | None = None
    max_new_tokens: int = Generation.max_new_tokens


@dataclass(frozen=True)
class Explained:
    """What was found: for the figure, and as a record for JSON."""

    explanation: Explanation
    record: dict[str, Any]


def explain(image: Path, question: str, wanted: ExplainOptions) -> Explained:
    """Asks one question about one picture with every method; what can be refused is refused before weights are read.

    Args:
        image: The picture's file; it is turned upright as its camera says.
        question: What is asked, as it stands: no instruction is added.
        wanted: On what, and what is to be shown.

    Returns:
        The maps over the base view, what was masked and cropped, and all answers.

    Raises:
        InputError: No readable picture, a question of blanks, or a layer profile of another checkpoint.
        OptionError: Options that are not allowed, or blocks that the checkpoint lacks.
        CheckpointError: The checkpoint cannot be used.
    """
    if not question.strip():
        raise InputError("The question is blank. Give it as text, e.g. --question 'What is on the table?'.")
    picture = read_picture(image)
    found = describe(wanted.checkpoint)
    methods = every_method.declare(found.trunk, wanted.given, wanted.checkpoint.pretrained)
    check_profiles([declared.method for declared in methods.values() if declared.method], wanted.checkpoint)
    generation = Generation(wanted.max_new_tokens)
    found.trunk.check_blocks("layers", wanted.layers or ())
    asked = Question("explain", image.name, 0, lambda: (Message("user", question, (picture,)),), len(question))
    family = load(found, wanted.inputs)
    outcomes = every_method.answer(family, asked, methods, generation)
    logs = {name: outcome.answer.log for name, outcome in outcomes.items() if outcome.answer is not None}
    contrast = logs.get("contrastive", {})
    layers = tuple(dict.fromkeys(wanted.layers or _telling(contrast, family.trunk)))
    looking = look(family, asked, layers)
    explanation = Explanation(
        checkpoint=wanted.checkpoint.pretrained,
        question=question,
        picture=np.asarray(picture),
        view=looking.view,
        seen=seen_by(looking.cells),
        layers=tuple(_layer(looking, block, contrast) for block in layers),
        contrast=_contrast(looking, contrast, methods["contrastive"].method),
        mask=_mask(looking, contrast),
        box=Rectangle(*logs["vicrop"]["box"]) if "box" in logs.get("vicrop", {}) else None,
        said=tuple(_said(name, outcome) for name, outcome in outcomes.items()),
        notes=_notes(looking),
    )
    record = {
        "schema": SCHEMA,
        "checkpoint": asdict(wanted.checkpoint),
        "inputs": asdict(family.inputs),
        "image": image.name,
        "question": question,
        "cells": asdict(looking.cells),
        "image_tokens": looking.tokens,
        "base_tokens": looking.base_tokens,
        "attention": {
            block: {"base_share": looking.base_share(block), "base_map": looking.on_cells(p).tolist()}
            for block, p in looking.attention.items()
        },
        "methods": {name: _recorded(outcome) for name, outcome in outcomes.items()},
    }
    return Explained(explanation, record)


def read_picture(file: Path) -> Image.Image:
    """Reads a picture, upright and in colours.

    Raises:
        InputError: There is no such file, or it is no whole picture.
    """
    if not file.is_file():
        raise InputError(
            f"{file} {'is a folder' if file.is_dir() else 'does not exist'}. Give a picture, e.g. a JPEG or PNG."
        )
    try:
        with Image.open(file) as opened:
            return ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow's, on damaged files
        raise InputError(f"{file} cannot be read as a picture: {error}.") from error


def _telling(contrast: Mapping[str, Any], trunk: Trunk) -> tuple[int, ...]:
    """The blocks worth a look: those that contrastive compared and the last; without it, three over the depth."""
    last = trunk.num_blocks - 1
    compared = {contrast[name] for name in ("pre_layer", "post_layer") if name in contrast}
    return tuple(sorted((compared or {last // 3, 2 * last // 3}) | {last}))


# ---- panels ----------------------------------------------------------------------------------------------------------
def _layer(looking: Looking, block: int, contrast: Mapping[str, Any]) -> Map:
    roles = {contrast.get("pre_layer"): ", pre-integrated", contrast.get("post_layer"): ", post-integrated"}
    return Map(f"block {block}{roles.get(block, '')}", looking.on_cells(looking.attention[block]) * looking.tokens)


def _contrast(looking: Looking, contrast: Mapping[str, Any], method: Method | None) -> Map | None:
    if "pre_layer" not in contrast:  # a control compares no maps
        return None
    assert isinstance(method, Contrastive)
    name = f"IA of blocks {contrast['pre_layer']} and {contrast['post_layer']}"
    score, eligible = looking.on_cells(contrast["maps"]["score"]), contrast["eligible_tokens"]
    if not method.renormalise:
        return Map(name, score, "raw mass")
    return Map(name, score * eligible, EQUAL if eligible == looking.tokens else "1: equal on the base view")


def _mask(looking: Looking, contrast: Mapping[str, Any]) -> Mask | None:
    if "maps" not in contrast:
        return None
    masked = f"{contrast['masked_tokens']:,} of {contrast['eligible_tokens']:,} tokens"
    return Mask(
        f"masked at block {contrast['review_layer']}: {masked}", looking.on_cells(contrast["maps"]["masked"]) > 0
    )


def seen_by(cells: Cells) -> Rectangle:
    """The part of the picture that a grid of cells covers, borders of the view included."""
    rows, columns = cells.grid
    return Rectangle(cells.left, cells.top, cells.left + columns * cells.width, cells.top + rows * cells.height)


def _said(name: str, outcome: Outcome) -> Said:
    given = ", ".join(f"{option}={value}" for option, value in outcome.declared.options.items())
    answered = outcome.answer is not None
    return Said(name, given, outcome.answer.text if outcome.answer is not None else outcome.reason, answered)


def _notes(looking: Looking) -> tuple[str, ...]:
    left_out = looking.tokens - looking.base_tokens
    if not left_out:
        return ()
    return (
        f"maps show the {looking.base_tokens:,} tokens of the base view; {left_out:,} of tiles and row ends have no "
        "place on it",
    )


def _recorded(outcome: Outcome) -> dict[str, Any]:
    if outcome.answer is None:
        return {"options": outcome.declared.options, "not_run": outcome.reason}
    return {"options": outcome.declared.options, "parameters": dict(outcome.parameters), **asdict(outcome.answer)}
