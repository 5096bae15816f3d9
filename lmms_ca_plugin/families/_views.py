"""What a family may add so that a method can show the model other pictures than those that were asked about.

None of it is needed to answer a question. A method that needs it refuses, by name, a family that lacks it.

Axis letters: t tokens of one picture, e hidden size, n pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from lmms_ca_plugin.errors import OptionError
from lmms_ca_plugin.families._cells import Cells

if TYPE_CHECKING:
    from lmms_ca_plugin.families._inputs import Inputs, Question


@dataclass(frozen=True)
class Features:
    """One picture as a prompt holds it.

    Attributes:
        states: (t, e), the projected features.
        kinds: (t,) int8, a `Kind` for every token.
        grid: Rows and columns of tokens, where rotary positions go by them.
    """

    states: Tensor
    kinds: Tensor
    grid: tuple[int, int] | None = None

    def detached(self) -> Features:
        """The same features without the graph they came from."""
        return replace(self, states=self.states.detach())


class Views:
    """The optional part of a family."""

    model_type: ClassVar[str]

    def _lacking(self, what: str) -> OptionError:
        return OptionError(
            f"families/{self.model_type}.py does not say {what}, which a method that crops pictures needs. Take "
            "another method, or teach the family."
        )

    @property
    def view_side(self) -> int:
        """Side of a view, pixels; where views have no fixed one, of the window that ViCrop starts from."""
        raise self._lacking("how large a view is")

    def cells(self, picture: tuple[int, int]) -> Cells:  # noqa: ARG002
        """Says where the base view's cells lie on a picture of this width and height."""
        raise self._lacking("which pixels a view shows")

    def base_pixels(self, pictures: dict[str, Any]) -> Sequence[Tensor]:  # noqa: ARG002
        """Takes the base views out of `Inputs.pictures`: (3, height, width) for each, in the processor's units."""
        raise self._lacking("where the base view's pixels are")

    def look(self, inputs: Inputs) -> list[Features]:  # noqa: ARG002
        """Runs the vision tower and the projector over all pictures of a batch."""
        raise self._lacking("how to look at a picture without a prompt")

    def look_at_base(self, inputs: Inputs) -> list[Features]:  # noqa: ARG002
        """Runs them over the base views only."""
        raise self._lacking("how to look at a base view alone")

    def base_tokens(self, picture: tuple[int, int]) -> int:  # noqa: ARG002
        """Tokens of a picture of this width and height that enters as its base view only."""
        raise self._lacking("how many tokens a base view has")

    def write(self, questions: Sequence[Question], lengths: Sequence[Sequence[int]]) -> Inputs:  # noqa: ARG002
        """Renders prompts for pictures that have been looked at already.

        Args:
            questions: What is asked.
            lengths: Tokens of every picture of every question.

        Returns:
            The batch, with placeholders expanded to these lengths; its features are for the caller to fill in.
        """
        raise self._lacking("how to write a prompt for features")
