"""Do the random weights give contrastive attention something to work on? Measured with eager attention."""

import pytest
import skimage
import torch
from PIL import Image

from lmms_ca_plugin.tiny import TinySettings, build_model, build_processor

FUSION, POST = (2, 4, 8, 11, 12, 13), 28
PHOTOGRAPHS = ("astronaut", "coffee", "chelsea")
SETTINGS = {
    "llava": TinySettings("llava"),
    "llava_next": TinySettings("llava_next", num_key_value_heads=2, image_size=112),
}


@pytest.fixture(scope="module", params=SETTINGS)
def outputs(request):
    settings = SETTINGS[request.param]
    model, processor = build_model(settings), build_processor(settings)
    model.set_attn_implementation("eager")
    found = {}
    for name in PHOTOGRAPHS:
        picture = Image.fromarray(getattr(skimage.data, name)())
        batch = processor(images=picture, text="USER: <image>\nWhat is this? ASSISTANT:", return_tensors="pt")
        with torch.no_grad():
            output = model(**batch, output_attentions=True, output_hidden_states=True)
        found[name] = (batch.input_ids[0] == processor.tokenizer.image_token_id, output)
    return found


def image_map(is_image, weights):
    row = weights[0, :, -1].mean(0)[is_image]  # (1, head, query, key) -> (image token)
    return row / row.sum()


def hellinger(p, q):
    return float((p.sqrt() - q.sqrt()).norm() / 2**0.5)


def test_every_candidate_block_looks_elsewhere_than_block_28(outputs):
    for is_image, output in outputs.values():
        maps = [image_map(is_image, weights) for weights in output.attentions]
        distances = [hellinger(maps[block], maps[POST]) for block in range(POST)]
        assert min(distances) > 0.1
        assert max(distances) < 0.9


def test_the_farthest_block_is_clear(outputs):
    for is_image, output in outputs.values():
        maps = [image_map(is_image, weights) for weights in output.attentions]
        distances = sorted(hellinger(maps[block], maps[POST]) for block in FUSION)
        assert distances[-1] - distances[-2] > 1e-4


def test_hidden_states_stay_small_and_logits_finite(outputs):
    for _, output in outputs.values():
        assert torch.isfinite(output.logits).all()
        assert all(float(states.pow(2).mean().sqrt()) < 20 for states in output.hidden_states)


def test_the_picture_decides_the_next_token(outputs):
    last = [output.logits[0, -1] for _, output in outputs.values()]
    assert len({int(row.argmax()) for row in last}) > 1
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert (last[one] - last[other]).norm() > 0.1 * last[one].norm()
