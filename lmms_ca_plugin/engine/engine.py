"""The engine's front for one method: questions in, answers out, in the order they were asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lmms_ca_plugin.engine import beams
from lmms_ca_plugin.engine.ahead import Ready
from lmms_ca_plugin.engine.decode import decode
from lmms_ca_plugin.engine.fingerprint import check_profiles
from lmms_ca_plugin.engine.front import Front
from lmms_ca_plugin.engine.generation import Generation
from lmms_ca_plugin.engine.load import CheckpointOptions, InputOptions, describe, load
from lmms_ca_plugin.engine.passes import MapPasses
from lmms_ca_plugin.engine.requests import Answer, Request, RunOptions
from lmms_ca_plugin.engine.run import Run
from lmms_ca_plugin.engine.selfcheck import complete, self_check
from lmms_ca_plugin.engine.trace import Trace
from lmms_ca_plugin.families._contract import Family, Inputs, Question
from lmms_ca_plugin.methods._contract import Method


class Engine(Front[Answer]):
    """A loaded checkpoint with one method.

    Args:
        family: The loaded checkpoint.
        method: The method; its plan must fit the checkpoint.
        options: How runs are carried out.
        name: The entry's name, for the progress bar and the trace.
        trace: Where records go, if anywhere.
        is_main: Whether this process shows progress.
    """

    def __init__(
        self,
        family: Family,
        method: Method,
        options: RunOptions,
        name: str = "vanilla",
        trace: Trace | None = None,
        is_main: bool = True,
    ) -> None:
        super().__init__(family, options, name, is_main)
        self.method = method
        self.plan = complete(family, method.plan(family.trunk))
        self.trace = trace
        self_check(family, self.plan)

    @classmethod
    def load(
        cls,
        name: str,
        method: Method,
        checkpoint: CheckpointOptions,
        inputs: InputOptions,
        options: RunOptions,
        **more: Any,
    ) -> Engine:
        """Opens a checkpoint; whatever does not fit is refused before its weights are read.

        Raises:
            OptionError: The method's options do not fit the checkpoint.
            CheckpointError: The checkpoint cannot be used.
            InputError: The method goes by a layer profile of another checkpoint, or the trace cannot be written.
        """
        found = describe(checkpoint)
        method.plan(found.trunk)
        check_profiles([method], checkpoint)
        trace = None if options.trace is None else Trace(options.trace)
        return cls(load(found, inputs), method, options, name, trace, **more)

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Answers questions, batch by batch, with a progress bar.

        Args:
            requests: Questions with their settings.

        Returns:
            One answer per request, in the same order.

        Raises:
            GenerationError: A question could not be answered; the message names it. What was answered before is in the
                trace, if there is one.
        """
        answers: dict[int, Answer] = {}
        for indices, answered in self.each_batch(requests):
            answers.update(zip(indices, answered, strict=True))
        return [answers[i] for i in range(len(requests))]

    def answer_batch(self, questions: Sequence[Question], generation: Generation) -> list[Answer]:
        """Answers questions that share their settings, in one batch if it fits, and writes the trace."""
        return self._answer_now(questions, generation)

    def _encode(self, questions: Sequence[Question]) -> Ready:
        if self.method.makes_inputs:
            return Ready([question.once() for question in questions], None)
        return super()._encode(questions)

    def _answer_together(
        self, questions: Sequence[Question], generation: Generation, inputs: Inputs | None
    ) -> list[Answer]:
        passes = MapPasses(self.family, lambda inputs: self.check_length(inputs, generation))
        prepared = self.method.prepare(questions, passes)
        if prepared is not None:
            inputs = prepared.inputs
        elif inputs is None:
            inputs = self.family.encode(questions)
        self.check_length(inputs, generation)
        prompt = self.prompt(inputs)
        run = Run(self.family, self.plan, prompt, generation.max_new_tokens)
        with run.attached():
            if generation.num_beams > 1:
                padding_token = self.family.processor.tokenizer.pad_token_id
                tokens = beams.search(run, generation, self.end_tokens, padding_token)
            else:
                tokens = decode(run, generation, self.end_tokens, self.to_text)
        logs = [edits | steps for edits, steps in zip(run.log, run.step_log(tokens), strict=True)]
        if prepared is not None:
            logs = [own | log for own, log in zip(prepared.log, logs, strict=True)]
        answers = self.answer_of(prompt, tokens, generation, logs)
        if self.trace is not None:
            self.trace.write(self._record(q, a) for q, a in zip(questions, answers, strict=True))
        return answers

    def _record(self, question: Question, answer: Answer) -> dict[str, Any]:
        return {
            "task": question.task,
            "split": question.split,
            "doc_id": question.doc_id,
            "repeat": question.repeat,
            "method": self.name,
            "parameters": self.method.describe(self.plan),
            "seed": self.options.seed,
            **answer.log,
            "prompt_tokens": answer.prompt_tokens,
            "image_tokens": answer.image_tokens,
            "new_tokens": answer.new_tokens,
            "margin": answer.margin,
            "answer": answer.text,
        }
