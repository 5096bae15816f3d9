"""What a user asks of a study: on which checkpoint and tasks, how many documents, with which options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from lmms_ca_plugin.checkpoints import options_of
from lmms_ca_plugin.errors import OptionError
from lmms_ca_plugin.harness.study import Settings, Study
from lmms_ca_plugin.methods import load_method
from lmms_ca_plugin.methods._variant import Variant


@dataclass(frozen=True, kw_only=True)
class Asked(Settings):
    """Settings that all studies share; each has a folder of its own in `output`.

    Attributes:
        given: Options by method, as the user set them; on a bundled checkpoint they are added to its own.
        timing: Questions by which each variant is timed alone and its answers are compared; 0 times none.
    """

    given: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    timing: int = 0

    def variant(self, name: str, method: str, x: float | None = None, **options: Any) -> Variant:
        """Makes a variant: the checkpoint's own options, then the user's, then the study's."""
        given = {**self.given.get(method, {}), **options}
        return Variant(name, method, options_of(self.checkpoint.pretrained, method, given), x)

    def refuse_own(self, study: str, method: str, option: str) -> None:
        """Refuses a user's option that a study varies itself.

        Raises:
            OptionError: It was given.
        """
        if option in self.given.get(method, {}):
            raise OptionError(
                f"--set {method}.{option}: the study {study} varies it itself, so it would do nothing, or variants "
                "would not be what they are called. Leave it out."
            )

    def study(self, name: str, variants: Sequence[Variant]) -> Study:
        """Makes a study of variants with these settings, in a folder of its name."""
        settings = {f.name: getattr(self, f.name) for f in fields(Settings)}
        return Study(**{**settings, "output": self.output / name}, name=name, variants=tuple(variants))


def folder_of(pretrained: str) -> str:
    """Names the folder of a checkpoint's studies, where those of several checkpoints lie side by side."""
    return pretrained.strip("/.").replace("/", "__")


def given_options(settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Reads options as users type them for several methods at once.

    Args:
        settings: E.g. `contrastive.review_layer=20`.

    Returns:
        Value by option, by method.

    Raises:
        OptionError: Another form, or a method or option that does not exist.
    """
    found: dict[str, dict[str, Any]] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        method, dot, option = name.partition(".")
        if not (equals and dot and method and option):
            raise OptionError(f"--set {setting}: write METHOD.OPTION=VALUE, e.g. contrastive.review_layer=20.")
        load_method(method)
        if option in found.setdefault(method, {}):
            raise OptionError(f"--set {name} is given twice, as {found[method][option]} and as {value}. Give it once.")
        found[method][option] = value
    for method, options in found.items():
        load_method(method).from_options(options)
    return found
