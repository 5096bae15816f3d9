"""ViCrop's three maps: where in a picture the model looks for the answer to a question.

Source: Zhang et al., "MLLMs Know Where to Look"; `llava_methods.py` and `utils.py` (`high_pass_filter`) of
saccharomycetes/mllms_know, restated from their formulas.
Deviates: nothing is divided by zero (1e-12 is added to the general prompt's share); the high-pass filter looks at the
part of the view that shows the picture, so that the edge between picture and border is not taken for detail.

Axis letters: b samples, h heads, s prompt positions, r rows, c columns of cells, x and y pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL.Image import Image, Resampling
from scipy import ndimage
from torch import Tensor

from lmms_ca_plugin.errors import InputError
from lmms_ca_plugin.families._cells import Cells, cells_of, whole
from lmms_ca_plugin.families._contract import Inputs, Kind
from lmms_ca_plugin.families._views import Features
from lmms_ca_plugin.methods._distances import distribution
from lmms_ca_plugin.methods._passes import Passes

EPSILON = 1e-12
Grid = tuple[int, int]  # rows and columns of cells


@dataclass(frozen=True)
class Maps:
    """What was found for a batch of one picture each.

    Attributes:
        values: For every sample its map (r, c) over the base view's cells.
        features: For every sample its picture's features.
    """

    values: tuple[Tensor, ...]
    features: tuple[Features, ...]


def relative_attention(passes: Passes, asked: Inputs, general: Inputs, block: int, grids: Sequence[Grid]) -> Maps:
    """Divides the attention of the question by that of a request for a general description.

    Args:
        passes: The way to ask the model.
        asked: The questions, with their pictures.
        general: The same pictures with the general request.
        block: The block to read.
        grids: Of every picture.

    Returns:
        Maps p(question) / (p(general) + 1e-12), p over all image tokens.
    """
    features = tuple(passes.look(asked))
    weights, others = passes.attention([replace(inputs, features=features) for inputs in (asked, general)], block)
    found = []
    for row, other, mine, its, seen, grid in zip(
        weights, others, _image(passes, asked), _image(passes, general), features, grids, strict=True
    ):
        shares = distribution(row[mine.to(row.device)]) / (distribution(other[its.to(other.device)]) + EPSILON)
        found.append(base_map(shares, seen.kinds, grid, asked.questions[0].name))
    return Maps(tuple(found), features)


def gradient_attention(passes: Passes, asked: Inputs, block: int, grids: Sequence[Grid]) -> Maps:
    """Weighs the attention by how much each weight raises the likeliest first token.

    Args:
        passes: The way to ask the model.
        asked: The questions, with their pictures.
        block: The block to read.
        grids: Of every picture.

    Returns:
        Maps A * max(0, d log p / d A), mean over heads.
    """
    features = tuple(passes.look(asked))
    weights, gradient = passes.attention_gradient(replace(asked, features=features), block)
    scores = (weights * gradient.clamp(min=0)).mean(1)  # (b, h, s) -> (b, s)
    rows = zip(scores, _image(passes, asked), features, grids, strict=True)
    name = asked.questions[0].name
    found = [base_map(row[mine.to(row.device)], seen.kinds, grid, name) for row, mine, seen, grid in rows]
    return Maps(tuple(found), features)


def pure_gradient(
    passes: Passes, asked: Inputs, general: Inputs, pictures: Sequence[Image], cells: Sequence[Cells]
) -> Maps:
    """Divides the gradients of the likeliest first token by the pixels, and keeps them where there is detail.

    Args:
        passes: The way to ask the model.
        asked: The questions, with their pictures.
        general: The same pictures with the general request.
        pictures: The pictures.
        cells: Where the map is to be placed on each.

    Returns:
        Maps |g(question)| / (|g(general)| + 1e-12), norms over the colours, 0 where the high-pass filtered picture is
        at most its median, mean over a cell's pixels.
    """
    family = passes.family
    by_prompt, looked = passes.pixel_gradients(asked, [asked, general])
    norms = [
        [g.double().norm(dim=0).cpu() for g in family.base_pixels({**asked.pictures, "pixel_values": gradients})]
        for gradients in by_prompt
    ]  # (y, x) each
    ratios = [mine / (its + EPSILON) for mine, its in zip(*norms, strict=True)]
    scale = torch.tensor(family.processor.image_processor.image_std, dtype=torch.float64)[:, None, None]
    views = [view.double() * scale for view in family.base_pixels(asked.pictures)]  # (3, y, x) each
    found = []
    for ratio, view, picture, of in zip(ratios, views, pictures, cells, strict=True):
        if of == family.cells(picture.size):
            detail = detailed(view.numpy(), of)
        else:  # the map is laid over the whole picture, and so is the filter
            squashed = picture.convert("RGB").resize((view.shape[2], view.shape[1]), Resampling.BILINEAR)
            colours = np.asarray(squashed, dtype=np.float64).transpose(2, 0, 1) / 255  # (3, y, x)
            detail = detailed(colours, cells_of(picture.size, whole(picture.size), of.grid))
        rows, columns = of.grid
        kept = ratio * torch.from_numpy(detail)  # (y, x)
        kept = kept[: kept.shape[0] // rows * rows, : kept.shape[1] // columns * columns]
        found.append(kept.reshape(rows, kept.shape[0] // rows, columns, kept.shape[1] // columns).mean((1, 3)))
    return Maps(tuple(found), tuple(looked))


def detailed(view: np.ndarray, cells: Cells) -> np.ndarray:
    """Marks the pixels of a view that have more detail than most of the picture.

    Args:
        view: (3, y, x), values whose differences are colours from 0 to 1.
        cells: Where the view's cells lie on the picture; what shows no picture is not marked.

    Returns:
        (y, x) bool: above the median of the high-pass filtered picture.
    """
    shown = np.zeros(view.shape[1:], dtype=bool)
    y = _shown(cells.top, cells.height * cells.grid[0], cells.picture[1], view.shape[1])
    x = _shown(cells.left, cells.width * cells.grid[1], cells.picture[0], view.shape[2])
    filtered = high_pass(view[:, y, x])
    shown[y, x] = filtered > np.median(filtered)
    return shown


def high_pass(picture: np.ndarray) -> np.ndarray:
    """Measures detail: what a Gaussian blur of 3 x 3 (sigma 0.8) takes away, then a median filter of 7 x 7.

    Args:
        picture: (3, y, x), values whose differences are colours from 0 to 1.

    Returns:
        (y, x), the norm over the colours, filtered.
    """
    blurred = ndimage.gaussian_filter(picture, sigma=(0, 0.8, 0.8), radius=(0, 1, 1), mode="mirror")
    norm = np.sqrt(np.square(picture - blurred).sum(0))
    filtered: np.ndarray = ndimage.median_filter(norm, size=7)
    return filtered


def _shown(start: float, length: float, picture: int, side: int) -> slice:
    """Finds the pixels of a view's `side` that show any of the picture, along one axis; one at least."""
    first, last = (round(side * (edge - start) / length) for edge in (0, picture))
    first = min(max(first, 0), side - 1)
    return slice(first, max(min(last, side), first + 1))


def _image(passes: Passes, inputs: Inputs) -> Tensor:
    """Marks the image tokens of a batch: (b, s)."""
    return inputs.input_ids == passes.family.trunk.image_token_id


def base_map(values: Tensor, kinds: Tensor, grid: Grid, name: str) -> Tensor:
    """Takes the base view's cells out of one picture's image tokens.

    Args:
        values: (t,), one per image token.
        kinds: (t,), what each is.
        grid: Rows and columns of the base view's cells.
        name: The question's, for messages.

    Returns:
        (r, c), on the CPU; tokens of tiles and newlines are left out.

    Raises:
        InputError: The base view has other than one token per cell.
    """
    rows, columns = grid
    base = values[(kinds == Kind.BASE).to(values.device)]
    if len(base) != rows * columns:
        raise InputError(
            f"{name}: the base view has {len(base)} tokens, but {rows} x {columns} cells. A map "
            "needs one token per cell; vision_feature_select_strategy=full, which adds one, is not supported."
        )
    return base.view(rows, columns).cpu()
