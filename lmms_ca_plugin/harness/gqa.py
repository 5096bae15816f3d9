"""GQA's pictures, which lie in a table of their own and are joined by image id.

Source: the schema of the harness's task `gqa`. Deviation: the harness copies every picture into every question's row
(12,578 rows of 398 pictures) before it starts; here a picture is fetched when its question's turn has come.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from threading import Lock
from typing import Any

from datasets import Dataset, load_dataset
from lmms_eval.api.task import _resolve_hf_datasets_cache_dir

from lmms_ca_plugin.errors import InputError

_loading = Lock()


@cache
def _table() -> tuple[Dataset, dict[str, int]]:
    """Loads the pictures and numbers them by id."""
    table = load_dataset(
        "lmms-lab-encoder/GQA",
        "testdev_balanced_images",
        split="testdev",
        cache_dir=_resolve_hf_datasets_cache_dir(),
    )
    return table, {image_id: row for row, image_id in enumerate(table["id"])}


def pictures(doc: Mapping[str, Any]) -> list[Any]:
    """Fetches the picture of a GQA question.

    Args:
        doc: A question with an `imageId`, or with an `image` (PIL) of its own.

    Returns:
        One RGB picture.

    Raises:
        InputError: The table of pictures lacks the id.
    """
    if doc.get("image") is not None:
        return [doc["image"].convert("RGB")]
    with _loading:  # several threads may ask for the first picture at once
        table, rows = _table()
    if doc["imageId"] not in rows:
        raise InputError(
            f"GQA: question {doc.get('id')} shows picture '{doc['imageId']}', which testdev does not have."
        )
    return [table[rows[doc["imageId"]]]["image"].convert("RGB")]
