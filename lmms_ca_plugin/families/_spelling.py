"""What the installed transformers calls the key-value cache, in blocks, mask functions and `generate` alike.

Until 5.23 it is `past_key_values`. From 5.24 on it is `cache`; the old name warns at every block's call, and not all
functions take it any more.
"""

import inspect

from transformers.masking_utils import create_causal_mask

CACHE = "cache" if "cache" in inspect.signature(create_causal_mask).parameters else "past_key_values"
