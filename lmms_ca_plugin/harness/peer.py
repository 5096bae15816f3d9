"""The harness's own `llava_hf`, to be measured against.

Rule: its own constructor loads a checkpoint that is written from the model at hand, and its own `generate_until`
answers requests of the harness's. What is set from outside: its chat template is the one it falls back to for LLaVA-1.5
(the small tokenizer brings another, for messages in parts), and its model's generation config asks for a fixed number
of tokens. It takes one question at a time and no other batch size (lmms-eval 0.7.3).
Deviates: its module imports `decord`, which reads videos. Where that is not installed an empty module stands in for it
during the import; a video would fail at once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from lmms_eval.api.instance import Instance
from PIL import Image
from torch import Tensor

from lmms_ca_plugin.errors import LmmsCaError
from lmms_ca_plugin.families._contract import Family, Question

TASK, SPLIT = "bench", "none"


class LlavaHf:
    """`llava_hf` of the harness on the weights of a loaded model, as a `bench.sides.Runner`.

    Args:
        family: The model; its checkpoint is written to a temporary folder and loaded from there, so that it is in
            memory twice.
        questions: What will be asked; the harness makes its requests' texts before it asks.
        new_tokens: Tokens of every answer.

    Raises:
        LmmsCaError: The harness cannot make its model.
    """

    name = "llava_hf, batch 1"

    def __init__(self, family: Family, questions: Sequence[Question], new_tokens: int) -> None:
        self.new_tokens = new_tokens
        self._contexts = {question.doc_id: question.read()[0].text for question in questions}
        self._given: list[int] = []  # new tokens of each answer
        device = str(family.model.device)
        with _a_place_for_decord(), TemporaryDirectory() as folder:
            family.model.save_pretrained(folder)
            family.processor.save_pretrained(folder)
            try:
                from lmms_eval.models.simple import llava_hf

                template = llava_hf.VICUNA_CHAT_TEMPLATE
                # Its default, an empty device_map, is refused by transformers 5.
                self.entry: Any = llava_hf.LlavaHf(folder, device=device, device_map=device, chat_template=template)
            except Exception as error:  # whatever the harness or transformers raises; the user must know whose it is
                raise LmmsCaError(
                    f"The harness's llava_hf cannot be made on {device}: {type(error).__name__}: {error}. Give "
                    "--against generate to measure without it."
                ) from error
        self.entry.model.generation_config.min_new_tokens = new_tokens
        self.entry._rank = 1  # its progress bars would break ours; nothing else asks for the rank
        self._generate = self.entry.model.generate
        self.entry.model.generate = self._counted

    def texts(self, questions: Sequence[Question]) -> list[str]:
        """Answers questions through the entry's `generate_until`.

        Raises:
            LmmsCaError: It failed, which it hides behind an empty answer, or decoded another number of tokens.
        """
        self.entry.task_dict = {TASK: {SPLIT: {question.doc_id: question for question in questions}}}
        self._given.clear()
        answers = self.entry.generate_until([self._request(question) for question in questions])
        if self._given != [self.new_tokens] * len(questions):
            raise LmmsCaError(
                f"llava_hf decoded {self._given} tokens in place of {self.new_tokens} for each of {len(questions)} "
                "questions; its cost cannot be compared."
            )
        return [answer.strip() for answer in answers]

    def _request(self, question: Question) -> Instance:
        settings = {"max_new_tokens": self.new_tokens}  # a new one each time, because the entry adds to it
        arguments = (self._contexts[question.doc_id], settings, _pictures, question.doc_id, TASK, SPLIT)
        metadata = {"task": TASK, "doc_id": question.doc_id, "repeats": 1}
        return Instance("generate_until", arguments, question.doc_id, metadata)

    def _counted(self, **given: Any) -> Tensor:
        output: Tensor = self._generate(**given)
        self._given.append(output.shape[1] - given["input_ids"].shape[1])
        return output


def _pictures(question: Question) -> list[Image.Image]:
    return [picture for message in question.read() for picture in message.pictures]


@contextmanager
def _a_place_for_decord() -> Iterator[None]:
    if find_spec("decord") is not None:
        yield
        return
    sys.modules["decord"] = place = ModuleType("decord")
    place.__dict__.update(VideoReader=None, cpu=None)
    try:
        yield
    finally:
        del sys.modules["decord"]
