"""How the families are asked: a chat's turns become a prompt's text, with one placeholder per picture in it.

Rule: how turns are rendered is the checkpoint's (`_conversations.py`); what its processor makes of pictures stays as it
is, but for its shape, which begins with the picture.

Axis letters: n pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, get_args

from PIL import Image
from torch import Tensor

from lmms_ca_plugin.errors import CheckpointError, InputError, OptionError, unknown
from lmms_ca_plugin.families._contract import AspectRatio, Family, InputOptions, Inputs, Message, Question, Trunk
from lmms_ca_plugin.families._conversations import RENDERERS, check_placeholder, trained_on
from lmms_ca_plugin.families._options import AS_TRAINED


class Chat(Family):
    """A processor that expands one placeholder per picture.

    Attributes:
        aspect_ratios: What `image_aspect_ratio` may be.
        conversations: What `conversation` may be.
        longest_ratio: Of a picture's sides, where the processor resizes it.
        picture_inputs: What the vision side takes of the processor's output.
    """

    aspect_ratios: ClassVar[tuple[str, ...]] = get_args(AspectRatio)
    conversations: ClassVar[tuple[str, ...]] = tuple(RENDERERS)
    longest_ratio: ClassVar[float]
    picture_inputs: ClassVar[tuple[str, ...]]

    def __init__(self, model: Any, processor: Any, inputs: InputOptions = AS_TRAINED) -> None:
        super().__init__(model, processor, inputs)
        self.image_token: str = processor.image_token
        begin = processor.tokenizer.bos_token
        begun = begin is not None and self.render((Message("user", "?"),)).startswith(begin)
        # A conversation that writes the first token itself gets no second one.
        self._tokenizing = {"padding": True, "return_tensors": "pt", "add_special_tokens": not begun}

    @classmethod
    def fit(cls, processor: Any, config: Any, trunk: Trunk, inputs: InputOptions) -> InputOptions:
        """Refuses a processor that marks pictures by another token, or a conversation that does not show them."""
        inputs = super().fit(processor, config, trunk, inputs)
        for name, allowed in (("conversation", cls.conversations), ("image_aspect_ratio", cls.aspect_ratios)):
            given = getattr(inputs, name)
            if given not in (None, *allowed):
                raise unknown(name, given, allowed)
        image_token = getattr(processor, "image_token", None) or ""
        known = processor.tokenizer.convert_tokens_to_ids(image_token) if image_token else None
        if known != trunk.image_token_id:
            raise CheckpointError(
                f"The processor's image token is {image_token!r} (id {known}), but the checkpoint marks "
                f"pictures with id {trunk.image_token_id}. Use the processor that belongs to the checkpoint."
            )
        conversation = inputs.conversation or trained_on(processor, trunk)
        if conversation not in cls.conversations:
            conversation = "processor"  # whatever its template looks like
        check_placeholder(processor, conversation, cls.conversations)
        max_pixels = cls.bound(processor, inputs.max_pixels)
        return InputOptions(conversation, inputs.image_aspect_ratio or "processor", max_pixels)

    @classmethod
    def bound(cls, processor: Any, max_pixels: int | None) -> int | None:  # noqa: ARG003
        """Has the processor make larger pictures smaller, where a picture is shown in its own shape.

        Args:
            processor: The processor.
            max_pixels: The most pixels of a picture; None leaves it at the processor's own bound.

        Returns:
            The bound; None where there is none.

        Raises:
            OptionError: It has no meaning here, or is below the processor's least.
        """
        if max_pixels is not None:
            raise OptionError(
                f"max_pixels={max_pixels} has no meaning for '{cls.model_type}', whose views have one size. "
                "Leave it out."
            )
        return None

    def render(self, conversation: Sequence[Message]) -> str:
        """Renders a conversation up to where the model's answer begins; one placeholder per picture.

        Args:
            conversation: The turns; pictures stand before their turn's text.

        Returns:
            The prompt text.
        """
        assert self.inputs.conversation is not None  # it is settled
        return RENDERERS[self.inputs.conversation](self.processor, conversation)

    def prepare_picture(self, picture: Image.Image) -> Image.Image:
        """Makes a picture what the image processor shall see: RGB.

        Args:
            picture: Any mode and size.

        Returns:
            RGB.
        """
        picture = picture.convert("RGB")
        if picture.height in (1, 3):
            # transformers 4.57 guesses from the shape which axis holds the channels; here it would take the rows.
            picture = picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST)
        return picture

    def check(self, question: Question, conversation: Sequence[Message]) -> None:
        """Refuses what cannot be asked.

        Raises:
            InputError: An empty question, the placeholder inside a text, or a picture too thin to resize.
        """
        asked = [message for message in conversation if message.role == "user"]
        if not asked or not asked[-1].text.strip():
            raise InputError(f"{question.name}: the question is empty.")
        for message in conversation:
            if self.image_token in message.text:
                raise InputError(
                    f"{question.name}: the text contains the picture placeholder {self.image_token!r}, which would be "
                    f"taken for a picture: {message.text!r}. Remove it from the text."
                )
            if self.inputs.image_aspect_ratio == "processor":
                self._check_shapes(question.name, message.pictures)

    def _check_shapes(self, name: str, pictures: Sequence[Image.Image]) -> None:
        """Refuses pictures that the processor's resize would blow up beyond memory, or does not take."""
        for picture in pictures:
            width, height = picture.size
            if max(width, height) > self.longest_ratio * min(width, height):
                pad = "Use image_aspect_ratio=pad, or crop it." if "pad" in self.aspect_ratios else "Crop it."
                raise InputError(
                    f"{name}: a picture of {width} x {height} pixels is thinner than 1:{self.longest_ratio:g} and "
                    f"cannot be resized. {pad}"
                )

    def encode(self, questions: Sequence[Question]) -> Inputs:
        """Renders prompts and pictures of a batch; runs on the CPU and touches no weight."""
        texts, pictures, counts = [], [], []
        for question in questions:
            conversation = question.read()
            self.check(question, conversation)
            texts.append(self.render(conversation))
            prepared = [self.prepare_picture(p) for message in conversation for p in message.pictures]
            pictures += prepared
            counts.append(len(prepared))
        batch = dict(self.processor(text=texts, images=pictures or None, **self._tokenizing))
        return Inputs(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"].bool(),
            pictures=self.by_picture({name: batch[name] for name in self.picture_inputs} if pictures else {}),
            num_pictures=tuple(counts),
            questions=tuple(questions),
        )

    def by_picture(self, pictures: dict[str, Tensor]) -> dict[str, Tensor]:
        """Gives what the processor made of n pictures the shape (n, ...); most processors' has it already."""
        return pictures

    def write(self, questions: Sequence[Question], lengths: Sequence[Sequence[int]]) -> Inputs:
        """Renders prompts for pictures that have been looked at already.

        Args:
            questions: What is asked.
            lengths: Tokens of every picture of every question; the placeholders are expanded to them.

        Returns:
            The batch; its features are for the caller to fill in.
        """
        texts = []
        for question, tokens in zip(questions, lengths, strict=True):
            conversation = question.read()
            self.check(question, conversation)
            first, *others = self.render(conversation).split(self.image_token)
            expanded = [self.image_token * n + text for n, text in zip(tokens, others, strict=True)]
            texts.append("".join([first, *expanded]))
        batch = self.processor.tokenizer(texts, **self._tokenizing)
        return Inputs(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"].bool(),
            pictures={},
            num_pictures=tuple(map(len, lengths)),
            questions=tuple(questions),
        )
