"""The bundled checkpoint answers as in its full run; only a tie may fall otherwise."""

import importlib.util
import json
from pathlib import Path

import datasets
import pytest

TIE = 1e-3  # logits: far above float32's rounding over 12 blocks, far below what a changed rule or weight does


def script():
    spec = importlib.util.spec_from_file_location("stored_answers", Path(__file__).with_name("stored_answers.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def differing(stored, found):
    """Documents that are answered otherwise and were no tie in the stored run."""
    return [
        f"{entry} {document}: stored {text!r} by {margin} logits, now {found[entry][document][0]!r}"
        for entry, of in stored.items()
        for document, (text, margin) in of.items()
        if found[entry][document][0] != text and (margin is None or margin > TIE)
    ]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
    patch.setenv("HF_HUB_OFFLINE", "1")
    yield script().answered(tmp_path_factory.mktemp("slice"))
    patch.undo()


@pytest.fixture(scope="module")
def stored():
    return json.loads(Path(__file__).with_name("answers.json").read_text())


def test_the_answers_are_the_stored_ones(stored, found):
    assert {entry: list(of) for entry, of in found.items()} == {entry: list(of) for entry, of in stored.items()}
    assert differing(stored, found) == []


def test_margins_are_the_stored_ones(stored, found):
    """A change too small to turn an answer shows here."""
    for entry, of in stored.items():
        margins = {document: found[entry][document][1] for document in of}
        wanted = {document: margin for document, (_, margin) in of.items() if margin is not None}
        assert {document for document, margin in margins.items() if margin is not None} == set(wanted), entry
        margins = {document: margins[document] for document in wanted}
        assert margins == pytest.approx(wanted, abs=TIE, rel=TIE), entry


def test_a_tie_is_told_from_a_change():
    stored = {"e": {"t 1": ["yes", 1e-5], "t 2": ["no", 2.0]}}
    assert differing(stored, {"e": {"t 1": ["no", 1e-5], "t 2": ["no", 2.0]}}) == []
    assert len(differing(stored, {"e": {"t 1": ["yes", 1e-5], "t 2": ["yes", 0.5]}})) == 1
