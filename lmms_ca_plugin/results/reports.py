"""A comparison as text, JSON and JUnit XML. Scores and differences are in percent here."""

from __future__ import annotations

import json
import re
from typing import Any
from xml.etree import ElementTree

from lmms_ca_plugin.results.regression import REGRESSED, UNCLEAR, Flip, Regression, TaskVerdict

_NOT_XML = re.compile(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]")


def headline(task: TaskVerdict) -> str:
    """Says a task's verdict in one line.

    Args:
        task: The comparison of one task.

    Returns:
        E.g. `ca_gqa: regressed, -2.10 points [-3.20, -1.00] (vqa_exact 61.30 -> 59.20, n = 2000, Holm p = 0.0004)`.
    """
    pair = task.pair
    text = (
        f"{task.task}: {task.verdict}, {100 * pair.difference:+.2f} points [{100 * pair.low:+.2f}, "
        f"{100 * pair.high:+.2f}] ({task.metric} {100 * task.baseline_score:.2f} -> {100 * task.candidate_score:.2f}, "
        f"n = {pair.n}, Holm p = {task.p_holm:.2g})"
    )
    if task.verdict == UNCLEAR:
        text += f"; {_decision(task)}"
    return text


def _decision(task: TaskVerdict) -> str:
    """Says how many documents would decide."""
    if task.samples_to_decide is None:
        return "no number of documents would decide: the difference sits at the tolerance"
    return f"about {task.samples_to_decide} documents would decide if the difference stays"


def _remarks(task: TaskVerdict) -> list[str]:
    """What else has to be known of a task."""
    remarks = list(task.notes)
    for side, ids in (("baseline", task.only_baseline), ("candidate", task.only_candidate)):
        if ids:
            some = ", ".join(map(str, ids[:5])) + (", ..." if len(ids) > 5 else "")
            remarks.append(f"{len(ids)} documents are in the {side} only and were not compared: {some}")
    return remarks


def _flip(flip: Flip) -> str:
    """One document that changed, on one line."""
    return (
        f"document {flip.doc_id}: {flip.baseline_answer!r} ({100 * flip.baseline_score:.0f}) -> "
        f"{flip.candidate_answer!r} ({100 * flip.candidate_score:.0f})"
    )


def details(task: TaskVerdict, flips: int = 10) -> list[str]:
    """Lists what a reader wants to see below the verdict.

    Args:
        task: The comparison of one task.
        flips: How many changed documents to show, the greatest losses first.

    Returns:
        Lines.
    """
    pair, test = task.pair, task.pair.mcnemar
    lines = [
        f"improved {pair.improved}, worsened {pair.worsened} of {pair.n} documents on {pair.n_clusters} clusters; "
        f"paired t p = {pair.p_value:.2g}; "
        f"bootstrap [{100 * task.bootstrap[0]:+.2f}, {100 * task.bootstrap[1]:+.2f}]; "
        f"McNemar {test.fixed} fixed, {test.broken} broken, p = {test.p_value:.2g}"
    ]
    lines += _remarks(task)
    lines += [_flip(flip) for flip in task.flips[:flips]]
    if len(task.flips) > flips:
        lines.append(f"and {len(task.flips) - flips} more; --json lists all")
    return lines


def points(fraction: float) -> float:
    """Writes a fraction in percent, without the noise of the last bits."""
    return round(100 * fraction, 10)


def _task_json(task: TaskVerdict) -> dict[str, Any]:
    """One task, JSON-able."""
    pair = task.pair
    return {
        "task": task.task,
        "metric": task.metric,
        "verdict": task.verdict,
        "baseline_score": points(task.baseline_score),
        "candidate_score": points(task.candidate_score),
        "difference": points(pair.difference),
        "stderr": points(pair.stderr),
        "ci95": [points(pair.low), points(pair.high)],
        "ci90": [points(end) for end in pair.interval(0.90)],
        "bootstrap_ci95": [points(end) for end in task.bootstrap],
        "p_value": pair.p_value,
        "p_holm": task.p_holm,
        "mcnemar": {"fixed": pair.mcnemar.fixed, "broken": pair.mcnemar.broken, "p_value": pair.mcnemar.p_value},
        "n": pair.n,
        "n_clusters": pair.n_clusters,
        "improved": pair.improved,
        "worsened": pair.worsened,
        "samples_to_decide": task.samples_to_decide,
        "only_baseline": list(task.only_baseline),
        "only_candidate": list(task.only_candidate),
        "notes": list(task.notes),
        "flips": [
            {
                "doc_id": flip.doc_id,
                "baseline_answer": flip.baseline_answer,
                "candidate_answer": flip.candidate_answer,
                "baseline_score": points(flip.baseline_score),
                "candidate_score": points(flip.candidate_score),
            }
            for flip in task.flips
        ],
    }


def to_json(regression: Regression) -> str:
    """Writes a comparison as JSON.

    Args:
        regression: The comparison.

    Returns:
        One object; scores, differences and intervals in percent.
    """
    content = {
        "baseline": regression.baseline,
        "candidate": regression.candidate,
        "tolerance": points(regression.rules.tolerance),
        "alpha": regression.rules.alpha,
        "regressed": regression.regressed,
        "tasks": [_task_json(task) for task in regression.tasks],
        "notes": list(regression.notes),
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _xml(text: str) -> str:
    """Replaces characters that XML cannot hold; answers may hold any."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def to_junit(regression: Regression) -> str:
    """Writes a comparison as JUnit XML: one test per task, failed if it regressed.

    Args:
        regression: The comparison.

    Returns:
        The document.
    """
    failures = sum(task.verdict == REGRESSED for task in regression.tasks)
    suite = _Suite(tests=len(regression.tasks), failures=failures)
    for task in regression.tasks:
        case = suite.case(task.task)
        text = _xml("\n".join([headline(task), *details(task)]))
        if task.verdict == REGRESSED:
            ElementTree.SubElement(case, "failure", {"message": _xml(headline(task))}).text = text
        else:
            ElementTree.SubElement(case, "system-out").text = text
    return suite.document()


def error_junit(message: str) -> str:
    """Writes the JUnit XML of a comparison that could not be made.

    Args:
        message: Why not.

    Returns:
        A document with one test in error.
    """
    suite = _Suite(tests=1, errors=1)
    ElementTree.SubElement(suite.case("comparison"), "error", {"message": _xml(message)})
    return suite.document()


class _Suite:
    """The one suite of a JUnit document."""

    def __init__(self, tests: int, failures: int = 0, errors: int = 0) -> None:
        counts = {"tests": str(tests), "failures": str(failures), "errors": str(errors)}
        self.root = ElementTree.Element("testsuites", counts)
        self.suite = ElementTree.SubElement(self.root, "testsuite", {"name": "lmms-ca regress", **counts})

    def case(self, name: str) -> ElementTree.Element:
        """Adds a test."""
        return ElementTree.SubElement(self.suite, "testcase", {"classname": "lmms-ca.regress", "name": name})

    def document(self) -> str:
        """Writes the tree with its declaration."""
        ElementTree.indent(self.root)
        return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(self.root, encoding="unicode")}\n'
