"""Trunks that methods and studies plan with where no checkpoint is at hand."""

from dataclasses import replace

from lmms_ca_plugin.families._contract import Trunk

# LLaVA-1.5-7B, of which the paper's block numbers are.
PAPER = Trunk(
    model_type="llava",
    text_type="llama",
    num_blocks=32,
    hidden_size=4096,
    num_heads=32,
    num_key_value_heads=32,
    head_size=128,
    mlp_size=11008,
    max_positions=4096,
    image_token_id=32000,
    vocabulary=32064,
    tied_embeddings=False,
)
# Six narrow blocks.
SMALL = replace(
    PAPER, num_blocks=6, hidden_size=32, num_heads=4, num_key_value_heads=4, head_size=8, mlp_size=64, image_token_id=4
)
