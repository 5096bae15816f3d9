"""Small checkpoints in folders, as `save_pretrained` writes them."""

import pytest

from lmms_ca_plugin.tiny import TinySettings, write_checkpoint


@pytest.fixture(scope="module", params=["llava", "llava_next"])
def folder(request, tmp_path_factory):
    where = tmp_path_factory.mktemp(request.param) / "checkpoint"
    return write_checkpoint(where, TinySettings(request.param, num_blocks=4, hidden_size=32, image_size=56))
