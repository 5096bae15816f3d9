"""vicrop: shows the model the part of the picture it looks at a second time, larger.

Source: Zhang et al., "MLLMs Know Where to Look: Training-free Perception of Small Visual Details with Multimodal LLMs";
saccharomycetes/mllms_know at commit a64c5d5, restated from its behaviour.
Rule: a map over the picture's cells (`methods/_maps.py`), the box around what stands out in it (`methods/_box.py`), and
an answering pass with two pictures, the full one and the crop.
Deviates: the map is placed on the pixels that the vision tower really saw; `align=whole` lays it over the whole picture
as the reference does, although its processor cuts the middle out. The general request stands alone, without the task's
instruction on how to answer. LLaVA-NeXT, which the reference does not support, takes the crop as its base view only,
because two pictures with all their tiles are longer than its 4,096 positions. Of the three maps the reference has only
the first for Qwen2.5-VL; here Qwen's families have all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from PIL.Image import Image
from torch import Tensor

from lmms_ca_plugin.errors import InputError, OptionError
from lmms_ca_plugin.families._cells import Cells, cells_of, whole
from lmms_ca_plugin.families._contract import Family, Inputs, Question, Trunk
from lmms_ca_plugin.families._views import Features
from lmms_ca_plugin.methods._box import Box, find_box
from lmms_ca_plugin.methods._contract import Method, Plan
from lmms_ca_plugin.methods._maps import Maps, gradient_attention, pure_gradient, relative_attention
from lmms_ca_plugin.methods._passes import Passes, Prepared
from lmms_ca_plugin.methods._tiles import join, tiles

PAPER_LAYER = 14
GENERAL_REQUEST = "Write a general description of the image."


@dataclass(frozen=True)
class Map:
    """One picture's map and where it lies."""

    values: Tensor  # (r, c)
    cells: Cells


@dataclass(frozen=True)
class ViCrop(Method):
    """ViCrop; the defaults are the paper's.

    Attributes:
        map: `rel_att`: the question's attention over that of a general request. `grad_att`: attention times its
            gradient. `pure_grad`: the pixels' gradients over those of a general request.
        layer: The block whose attention is read; None is the paper's 14. `pure_grad` reads none.
        align: `processor`: the map lies on the pixels that the vision tower saw. `whole`: on the whole picture.
        high_res: Whether a picture with a side above 1024 pixels gets its map tile by tile.
        save_crops: A folder for the crops, as `<task>_<document>.png`.
    """

    map: Literal["rel_att", "grad_att", "pure_grad"] = "rel_att"
    layer: int | None = None
    align: Literal["processor", "whole"] = "processor"
    high_res: bool = False
    save_crops: str | None = None

    def __post_init__(self) -> None:
        if self.layer is not None and self.map == "pure_grad":
            raise OptionError(f"layer={self.layer} has no meaning with map=pure_grad, which reads no attention.")
        if self.save_crops is not None and Path(self.save_crops).exists() and not Path(self.save_crops).is_dir():
            raise OptionError(f"save_crops={self.save_crops} is a file. Name a folder.")

    def plan(self, trunk: Trunk) -> Plan:
        """Reads nothing and edits nothing in the answering pass.

        Raises:
            OptionError: A layer that the checkpoint lacks, or that nobody named.
        """
        return Plan() if self.map == "pure_grad" else Plan(settled={"layer": self._block(trunk)})

    def prepare(self, questions: Sequence[Question], passes: Passes) -> Prepared | None:
        """Looks for the box of every picture, and asks with the crop beside it; without pictures, as vanilla.

        Raises:
            InputError: A question with several pictures, or one whose prompt with the crop is too long.
            OptionError: The family does not know which pixels a view shows.
        """
        asked = [question.once() for question in questions]
        pictures = [_picture(question) for question in asked]
        shown = [q for q, picture in zip(asked, pictures, strict=True) if picture is not None]
        if not shown:
            return None
        family = passes.family
        encoded = family.encode(shown)
        counted = iter(_lengths(family, encoded))
        lengths = [next(counted) if picture is not None else 0 for picture in pictures]
        # No crop has more tokens than the whole picture but for rounding, so too long a prompt is refused early.
        passes.check(_written(family, asked, pictures, lengths))
        maps, full = self._maps(shown, encoded, passes)
        boxes = [find_box(m.values, m.cells, family.view_side) for m in maps]
        crops = [_seen_in(question).crop(box.corners) for question, box in zip(shown, boxes, strict=True)]
        self._save(shown, crops)
        cut = iter(crops)
        inputs = _written(family, asked, [next(cut) if p is not None else None for p in pictures], lengths)
        inputs = replace(inputs, questions=tuple(questions))
        passes.check(inputs)
        closer = passes.look_at_base(family.encode([_showing(q, c) for q, c in zip(shown, crops, strict=True)]))
        records = iter([self._record(box, m.cells, family.trunk) for box, m in zip(boxes, maps, strict=True)])
        return Prepared(
            inputs=replace(inputs, features=tuple(f for pair in zip(full, closer, strict=True) for f in pair)),
            log=tuple(next(records) if picture is not None else {} for picture in pictures),
        )

    # ---- maps --------------------------------------------------------------------------------------------------------
    def _maps(self, shown: Sequence[Question], encoded: Inputs, passes: Passes) -> tuple[list[Map], list[Features]]:
        """Finds the map of every question's picture, and the features of that picture."""
        sizes = [_seen_in(question).size for question in shown]
        parts = [tiles(size) if self.high_res else [Box(0, 0, *size)] for size in sizes]
        views = [
            _showing(question, _seen_in(question).crop(box.corners)) if len(boxes) > 1 else question
            for question, boxes in zip(shown, parts, strict=True)
            for box in boxes
        ]
        if len(views) == len(shown):
            found = [self._find(views, encoded, passes)]
        else:  # no more views at a time than there are questions
            batches = [views[i : i + len(shown)] for i in range(0, len(views), len(shown))]
            found = [self._find(batch, passes.family.encode(batch), passes) for batch in batches]
        of_views = iter([pair for maps in found for pair in zip(maps.values, maps.features, strict=True)])
        maps, full = [], []
        for question, size, boxes in zip(shown, sizes, parts, strict=True):
            values, features = zip(*[next(of_views) for _ in boxes], strict=True)
            cells = [self._cells(passes.family, (box.right - box.left, box.bottom - box.top)) for box in boxes]
            maps.append(Map(*join(values, cells, boxes, size)))
            full.append(features[0] if len(boxes) == 1 else passes.look(passes.family.encode([question]))[0])
            if not maps[-1].values.isfinite().all():
                raise InputError(f"{question.name}: the map has values that are not finite. Try dtype=float32.")
        return maps, full

    def _find(self, views: Sequence[Question], asked: Inputs, passes: Passes) -> Maps:
        family = passes.family
        pictures = [_seen_in(view) for view in views]
        cells = [self._cells(family, picture.size) for picture in pictures]
        grids = [of.grid for of in cells]
        if self.map == "grad_att":
            return gradient_attention(passes, asked, self._block(family.trunk), grids)
        lengths = [(tokens,) for tokens in _lengths(family, asked)]
        general = family.write([_asking(view, GENERAL_REQUEST) for view in views], lengths)
        if self.map == "rel_att":
            return relative_attention(passes, asked, general, self._block(family.trunk), grids)
        return pure_gradient(passes, asked, general, pictures, cells)

    def _cells(self, family: Family, picture: tuple[int, int]) -> Cells:
        seen = family.cells(picture)
        return seen if self.align == "processor" else cells_of(picture, whole(picture), seen.grid)

    def _block(self, trunk: Trunk) -> int:
        if self.layer is None and not trunk.is_paper_trunk:
            raise OptionError(
                f"The paper's layer is known only for LLaVA-1.5 and 1.6 on a 32-block LLaMA; this checkpoint is "
                f"{trunk.described}. Name a block in the middle (0 to {trunk.num_blocks - 1}), e.g. "
                f"layer={trunk.num_blocks * 7 // 16}."
            )
        block = PAPER_LAYER if self.layer is None else self.layer
        trunk.check_blocks("layer", (block,))
        return block

    # ---- records -----------------------------------------------------------------------------------------------------
    def _record(self, box: Box, cells: Cells, trunk: Trunk) -> dict[str, Any]:
        return {
            "picture": list(cells.picture),
            "box": list(box.corners),
            "window_ratio": box.ratio,
            "sharpness": box.sharpness,
            "map_layer": None if self.map == "pure_grad" else self._block(trunk),
        }

    def _save(self, questions: Sequence[Question], crops: Sequence[Image]) -> None:
        if self.save_crops is None:
            return
        folder = Path(self.save_crops)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for question, crop in zip(questions, crops, strict=True):
                task = re.sub(r"[^\w.-]", "_", question.task)
                crop.convert("RGB").save(folder / f"{task}_{question.doc_id}.png")
        except OSError as error:
            raise InputError(f"save_crops={folder} cannot be written: {error}.") from error


def _picture(question: Question) -> Image | None:
    pictures = [picture for message in question.read() for picture in message.pictures]
    if len(pictures) > 1:
        raise InputError(
            f"{question.name}: vicrop crops one picture, but the question shows {len(pictures)}. Take another method "
            "for tasks with several pictures."
        )
    return pictures[0] if pictures else None


def _seen_in(question: Question) -> Image:
    picture = _picture(question)
    assert picture is not None  # only asked of questions that show one
    return picture


def _showing(question: Question, *pictures: Image) -> Question:
    """Puts other pictures in the place of a question's one."""
    conversation = tuple(
        replace(message, pictures=pictures) if message.pictures else message for message in question.read()
    )
    return replace(question, conversation=lambda: conversation)


def _asking(question: Question, text: str) -> Question:
    """Puts another text in the place of what was asked last."""
    conversation = question.read()
    last = max(i for i, message in enumerate(conversation) if message.role == "user")
    changed = tuple(replace(m, text=text) if i == last else m for i, m in enumerate(conversation))
    return replace(question, conversation=lambda: changed)


def _written(
    family: Family, questions: Sequence[Question], crops: Sequence[Image | None], lengths: Sequence[int]
) -> Inputs:
    """Writes the answering prompts: each picture's tokens, then its crop's; None has neither."""
    shown = [q if crop is None else _showing(q, _seen_in(q), crop) for q, crop in zip(questions, crops, strict=True)]
    tokens = [
        () if crop is None else (own, family.base_tokens(crop.size)) for own, crop in zip(lengths, crops, strict=True)
    ]
    return family.write(shown, tokens)


def _lengths(family: Family, inputs: Inputs) -> list[int]:
    """Counts the image tokens of every question."""
    counted: list[int] = (inputs.input_ids == family.trunk.image_token_id).sum(-1).tolist()
    return counted


METHOD = ViCrop
