"""A LLaMA-style tokenizer, trained on the spot on the bundled corpus.

As LLaMA's: byte-pair merges over `▁`-marked words, byte fallback (so any text survives a round trip), `<unk> <s> </s>`
at 0, 1, 2, the 256 byte tokens next, `<s>` prepended. As LLaVA's: `<image>` and `<pad>` follow the vocabulary.
Training is deterministic, takes milliseconds, and happens once per process.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from lmms_ca_plugin.tiny.settings import Words
from lmms_ca_plugin.tiny.world.corpus import SENTENCES, world_lines

UNK, BOS, EOS, IMAGE, PAD = "<unk>", "<s>", "</s>", "<image>", "<pad>"
BYTES = tuple(f"<0x{value:02X}>" for value in range(256))
_MAX_VOCABULARY = {"corpus": 1024, "world": 4096}  # the small world's words become one piece each


def corpus() -> list[str]:
    """Returns the lines the tokenizer is trained on: prompt sentences, and questions and answers of our own."""
    text = (files("lmms_ca_plugin.tiny") / "corpus.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@cache
def _trained(words: Words) -> str:
    """Trains, and returns the tokenizer as JSON (a string cannot be changed by the one who gets it)."""
    # The world's lines say themselves where a space stands before the first word.
    scheme = "first" if words == "corpus" else "never"
    marked = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme, split=True)
    rules: list[pre_tokenizers.PreTokenizer] = [marked, pre_tokenizers.Punctuation()]
    lines: list[str] = corpus()
    sentences: tuple[str, ...] = ()
    if words == "world":
        rules.append(pre_tokenizers.Digits(individual_digits=True))  # as LLaMA's
        lines, sentences = world_lines(), SENTENCES
    splitting = pre_tokenizers.Sequence(rules)
    learner = Tokenizer(models.BPE(unk_token=UNK, byte_fallback=True))
    learner.pre_tokenizer = splitting
    learner.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=_MAX_VOCABULARY[words], show_progress=False))
    learned = json.loads(learner.to_str())["model"]
    pieces = sorted(learned["vocab"], key=learned["vocab"].__getitem__)
    vocabulary = {piece: number for number, piece in enumerate((UNK, BOS, EOS, *BYTES, *pieces))}
    merges = [tuple(merge) for merge in learned["merges"]]

    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token=UNK, fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = splitting
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (UNK, BOS, EOS)])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (IMAGE, PAD)])
    tokenizer.add_tokens([AddedToken(sentence, normalized=False) for sentence in sentences])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, vocabulary[BOS])]
    )
    return str(tokenizer.to_str())


def build_tokenizer(words: Words = "corpus") -> PreTrainedTokenizerFast:
    """Builds the tokenizer of the tiny models.

    Args:
        words: What it is trained on. In the small world's, the standing sentences of prompts are one token each, which
            halves the length of a prompt's text.

    Returns:
        A new tokenizer, padding on the left; `image_token` and `image_token_id` are set as LLaVA's processors expect.
    """
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained(words)),
        unk_token=UNK,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        extra_special_tokens={"image_token": IMAGE},
        model_input_names=["input_ids", "attention_mask"],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def special_tokens(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    """Ids of a tokenizer's special tokens, under the names that configs have for them."""
    return {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
