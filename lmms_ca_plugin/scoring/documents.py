"""What the tasks' YAML points at: prompts, and the scores, cluster and answers that each sample logs.

Rules:
* Prompts equal those of the harness's own tasks to the letter.
* A document is read, never changed. (The harness's own scorers overwrite its answers.)
* Every metric logs `{"score": ..., "cluster": ...}`, where the cluster is the picture; the main metric logs the answers
  as well, so that a sample file can be scored again. The harness reads the two by the YAML's `score_key` and
  `cluster_key`.
* The main metric gives a blank answer 0: EvalAI's processing turns an annotator's "a" into a blank, which a blank
  answer would then match. The official metrics keep what their code gives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from lmms_ca_plugin.errors import InputError
from lmms_ca_plugin.scoring.edit_distance import anls
from lmms_ca_plugin.scoring.matching import gqa_accuracy, word_overlap
from lmms_ca_plugin.scoring.vqa import textvqa_accuracy, vizwiz_accuracy, vqa_accuracy, vqa_tool_accuracy

Document = Mapping[str, Any]
Logged = dict[str, dict[str, Any]]
Scorer = Callable[[str, Sequence[str]], float]


def _field(doc: Document, name: str) -> Any:
    """Reads a document's column, or names the one that is missing."""
    if doc.get(name) is None:
        raise InputError(
            f"A document has no '{name}'; it has {', '.join(sorted(doc))}. "
            "Is this the split with answers, in the schema of the harness's own task?"
        )
    return doc[name]


def _gqa_cluster(doc: Document) -> str:
    return str(_field(doc, "imageId"))


def _image_cluster(doc: Document) -> str:
    return str(_field(doc, "image_id"))


def _okvqa_cluster(doc: Document) -> str:
    return str(_field(doc, "question_id"))[:-1]  # question ids are the image id and one more digit


def _vizwiz_cluster(doc: Document) -> str:
    return str(_field(doc, "question_id"))  # one question per picture


def _docvqa_cluster(doc: Document) -> str:
    return f"{_field(doc, 'ucsf_document_id')}_{_field(doc, 'ucsf_document_page_no')}"


@dataclass(frozen=True)
class Benchmark:
    """How one of the six sets is scored."""

    votes: bool
    official: str
    scorer: Scorer
    cluster: Callable[[Document], str]

    @property
    def main(self) -> str:
        """The main metric's name: votes and alternatives are not the same measure."""
        return "vqa_accuracy" if self.votes else "vqa_exact"


def _gqa(prediction: str, answers: Sequence[str]) -> float:
    return gqa_accuracy(prediction, answers[0])


BENCHMARKS: dict[str, Benchmark] = {
    "gqa": Benchmark(False, "gqa_accuracy", _gqa, _gqa_cluster),
    "vqav2": Benchmark(True, "vqa_tool_accuracy", vqa_tool_accuracy, _image_cluster),
    "okvqa": Benchmark(True, "vqa_tool_accuracy", vqa_tool_accuracy, _okvqa_cluster),
    "vizwiz": Benchmark(True, "vizwiz_accuracy", vizwiz_accuracy, _vizwiz_cluster),
    "textvqa": Benchmark(True, "textvqa_accuracy", textvqa_accuracy, _image_cluster),
    "docvqa": Benchmark(False, "anls", anls, _docvqa_cluster),
}
"""The six sets, in the order of the paper's tables."""


def answers_of(doc: Document) -> list[str]:
    """Lists a document's answers, whichever of the six schemas it has.

    Args:
        doc: A document with `answers` (texts, or records with `answer`) or a single `answer`.

    Returns:
        The answers, untouched and in their order.

    Raises:
        InputError: The document has no answers, as in a test split.
    """
    if "answers" not in doc:
        return [_field(doc, "answer")]
    return [given["answer"] if isinstance(given, Mapping) else given for given in _field(doc, "answers")]


def target(doc: Document) -> str:
    """Names a document's most frequent answer, for whoever reads the sample file.

    Args:
        doc: A document of any of the six sets.

    Returns:
        The answer; of equally frequent ones the first.

    Raises:
        InputError: The document has no answers.
    """
    return Counter(answers_of(doc)).most_common(1)[0][0]


def pictures(doc: Document) -> list[Any]:
    """Fetches a document's picture, as the harness's own tasks do.

    Args:
        doc: A document with an `image` (PIL).

    Returns:
        One RGB picture.
    """
    return [doc["image"].convert("RGB")]


def question(doc: Document, lmms_eval_specific_kwargs: Mapping[str, Any]) -> str:
    """Writes the prompt of GQA, VQAv2, OKVQA and DocVQA.

    Args:
        doc: A document with a `question`.
        lmms_eval_specific_kwargs: `pre_prompt` and `post_prompt`.

    Returns:
        The prompt.
    """
    kwargs = lmms_eval_specific_kwargs
    return f"{kwargs['pre_prompt']}{doc['question']}{kwargs['post_prompt']}"


def capitalized_question(doc: Document, lmms_eval_specific_kwargs: Mapping[str, Any]) -> str:
    """Writes the prompt of VizWiz and TextVQA, whose questions get one capital at the start and none after it.

    Args:
        doc: A document with a `question`.
        lmms_eval_specific_kwargs: `pre_prompt` and `post_prompt`.

    Returns:
        The prompt.
    """
    return question({"question": doc["question"].capitalize()}, lmms_eval_specific_kwargs)


def score(benchmark: str, doc: Document, prediction: str) -> Logged:
    """Scores one answer by the set's main, official and secondary metric.

    Args:
        benchmark: A key of `BENCHMARKS`.
        doc: The document.
        prediction: The model's answer.

    Returns:
        Metric to `{score, cluster}`; the main metric's also holds `answers`.

    Raises:
        InputError: The document lacks answers or a column that the cluster needs.
    """
    how, answers = BENCHMARKS[benchmark], answers_of(doc)
    cluster = how.cluster(doc)
    main = vqa_accuracy(prediction, answers, votes=how.votes) if prediction.strip() else 0.0
    return {
        how.main: {"score": main, "cluster": cluster, "answers": answers},
        how.official: {"score": how.scorer(prediction, answers), "cluster": cluster},
        "word_overlap": {"score": word_overlap(prediction, answers), "cluster": cluster},
    }


def mean_score(samples: Sequence[Mapping[str, Any]]) -> float:
    """Aggregates a metric over a task's samples for the harness's result file.

    Args:
        samples: What `score` logged.

    Returns:
        The mean score, 0 to 1.
    """
    return fmean(sample["score"] for sample in samples)


def score_gqa(doc: Document, results: Sequence[str]) -> Logged:
    """Scores a GQA answer; see `score`."""
    return score("gqa", doc, results[0])


def score_vqav2(doc: Document, results: Sequence[str]) -> Logged:
    """Scores a VQAv2 answer; see `score`."""
    return score("vqav2", doc, results[0])


def score_okvqa(doc: Document, results: Sequence[str]) -> Logged:
    """Scores an OKVQA answer; see `score`."""
    return score("okvqa", doc, results[0])


def score_vizwiz(doc: Document, results: Sequence[str]) -> Logged:
    """Scores a VizWiz answer; see `score`."""
    return score("vizwiz", doc, results[0])


def score_textvqa(doc: Document, results: Sequence[str]) -> Logged:
    """Scores a TextVQA answer; see `score`."""
    return score("textvqa", doc, results[0])


def score_docvqa(doc: Document, results: Sequence[str]) -> Logged:
    """Scores a DocVQA answer; see `score`."""
    return score("docvqa", doc, results[0])
