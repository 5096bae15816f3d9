"""A layer profile's file: what is written is read again, more keys do no harm, and what is wrong is named."""

import json

import pytest

from lmms_ca_plugin.errors import InputError
from lmms_ca_plugin.layer_profile import LayerProfile, read_profile

PROFILE = LayerProfile("llava", 8, (0, 2), 5, 6, "by hand", "ab12")


def written(folder, content):
    (folder / "profile.json").write_text(json.dumps(content))
    return folder / "profile.json"


@pytest.mark.parametrize("profile", [PROFILE, LayerProfile("llava_next", 4, (), None, None)])
def test_what_is_written_is_read_again(tmp_path, profile):
    assert read_profile(written(tmp_path, profile.to_json())) == profile
    assert read_profile(written(tmp_path, {**profile.to_json(), "curves": [1], "more": {}})) == profile


def test_rule_and_digest_may_be_missing(tmp_path):
    content = {k: v for k, v in PROFILE.to_json().items() if k not in ("rule", "checkpoint_sha")}
    assert read_profile(written(tmp_path, content)) == LayerProfile("llava", 8, (0, 2), 5, 6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "has schema 2. Needed: schema 1 with model_type, num_blocks, fusion, post, review"),
        ({"num_blocks": 0}, "num_blocks is 0. Allowed: a whole number from 1 on"),
        ({"num_blocks": "8"}, "num_blocks is '8'"),
        ({"fusion": None}, "fusion is None. Allowed: a list of blocks"),
        ({"fusion": [0, 8]}, "fusion names block 8. Allowed: 0 to 7"),
        ({"fusion": [None]}, "fusion names block None"),
        ({"post": -1}, "post names block -1"),
        ({"review": True}, "review names block True"),
        ({"review": "6"}, "review names block '6'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        read_profile(written(tmp_path, {**PROFILE.to_json(), **change}))


@pytest.mark.parametrize("content", [[1, 2], "text", {"schema": 1, "fusion": []}])
def test_what_is_missing_is_named(tmp_path, content):
    with pytest.raises(InputError, match="lacks .*num_blocks, post, review"):
        read_profile(written(tmp_path, content))


def test_a_file_that_is_none_is_named(tmp_path):
    (tmp_path / "half.json").write_text("{")
    for name in ("half.json", "none.json"):
        with pytest.raises(InputError, match=f"{name} cannot be read as JSON"):
            read_profile(tmp_path / name)
