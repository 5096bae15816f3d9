"""Answers computed together beside those of runs alone."""

from lmms_ca_plugin.engine.agreement import Agreement
from lmms_ca_plugin.engine.requests import Answer


def answer(text, margin=None):
    return Answer(text, 9, 4, 1, {}, margin=margin)


def test_what_differs_is_counted_with_the_margins_of_the_run_alone():
    together = [answer("red", 3.0), answer("cat", 3.0), answer("no", 3.0)]
    found = Agreement.of(together, [answer("red", 0.0), answer("dog", 0.125), answer("yes", 0.5)])
    assert found == Agreement(3, (0.125, 0.5))
    assert (found.differing, found.widest) == (2, 0.5)
    assert str(found) == "2 of 3 answers differ, chosen by at most 0.5 in logits at their closest"


def test_comparisons_are_joined():
    same, sampled = Agreement.of([answer("a")], [answer("a")]), Agreement.of([answer("a")], [answer("b")])
    assert same + sampled == Agreement(2, (None,))
    assert str(same) == "1 of 1 answers are the same"
    assert (same + sampled).widest is None and str(sampled) == "1 of 1 answers differ, sampled"
