"""A layer profile: which blocks of one checkpoint fuse picture and text, and which one reviews the picture.

Rule: the file is JSON, `{schema: 1, model_type, num_blocks, fusion: [int], post: int|null, review: int|null, rule,
checkpoint_sha}`. `results/profiles.py` finds a profile and `methods/contrastive.py` takes one; neither may import the
other, so what both know of the file stands here. What else the file holds (curves, tests) is the finder's own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lmms_ca_plugin.errors import InputError

SCHEMA = 1
_NEEDED = ("schema", "model_type", "num_blocks", "fusion", "post", "review")


@dataclass(frozen=True)
class LayerProfile:
    """The blocks of one checkpoint that matter to its pictures; all 0-based.

    Attributes:
        model_type: The checkpoint's.
        num_blocks: Decoder blocks of its language model.
        fusion: Blocks that fuse picture and text, ascending; may be empty.
        post: The post-integrated block; None where no review block was found.
        review: The block that reviews the picture; None where none was found.
        rule: How they were found, in words.
        checkpoint_sha: Digest of the weights they were found on (`engine.fingerprint.checkpoint_sha`).
    """

    model_type: str
    num_blocks: int
    fusion: tuple[int, ...]
    post: int | None
    review: int | None
    rule: str = ""
    checkpoint_sha: str = ""

    def to_json(self) -> dict[str, Any]:
        """Lists the file's keys that `read_profile` knows."""
        return {"schema": SCHEMA, **asdict(self), "fusion": list(self.fusion)}


def read_profile(file: str | Path) -> LayerProfile:
    """Reads a layer profile; keys that it does not know are left alone.

    Args:
        file: A JSON file.

    Returns:
        The profile.

    Raises:
        InputError: It is no JSON, of another schema, lacks a key, or names blocks that its checkpoint cannot have.
    """
    try:
        held = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"profile={file} cannot be read as JSON: {error}.") from error
    missing = [name for name in sorted(_NEEDED) if not isinstance(held, dict) or name not in held]
    if missing or held["schema"] != SCHEMA:
        wrong = f"lacks {', '.join(missing)}" if missing else f"has schema {held['schema']}"
        raise InputError(f"profile={file} {wrong}. Needed: schema {SCHEMA} with {', '.join(_NEEDED[1:])}.")
    _check_blocks(file, held)
    return LayerProfile(
        model_type=held["model_type"],
        num_blocks=held["num_blocks"],
        fusion=tuple(held["fusion"]),
        post=held["post"],
        review=held["review"],
        rule=str(held.get("rule", "")),
        checkpoint_sha=str(held.get("checkpoint_sha", "")),
    )


def _check_blocks(file: str | Path, held: Mapping[str, Any]) -> None:
    count = held["num_blocks"]
    if type(count) is not int or count < 1:  # JSON's true would pass for 1
        raise InputError(f"profile={file}: num_blocks is {count!r}. Allowed: a whole number from 1 on.")
    for name, blocks in (("fusion", held["fusion"]), ("post", [held["post"]]), ("review", [held["review"]])):
        if not isinstance(blocks, list):
            raise InputError(f"profile={file}: fusion is {blocks!r}. Allowed: a list of blocks, which may be empty.")
        for block in blocks:
            if not (block is None and name != "fusion") and (type(block) is not int or not 0 <= block < count):
                raise InputError(f"profile={file}: {name} names block {block!r}. Allowed: 0 to {count - 1}.")
