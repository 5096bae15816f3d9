"""A seeded slice of the bundled checkpoint's full run, with what was answered and how near each choice was.

Run it as a script to store what this version answers: `python tests/tiny/stored_answers.py`.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from lmms_ca_plugin.cli.quickstart import BATCH_SIZE, CHECKPOINT, ENTRIES, TASKS
from lmms_ca_plugin.engine.load import CheckpointOptions
from lmms_ca_plugin.harness.runner import Runner
from lmms_ca_plugin.studies.asked import Asked

FILE = Path(__file__).with_name("answers.json")
LIMIT, SEED = 5, 0  # documents of each set


def answered(folder):
    """By entry and `task document`: the answer's text and margin."""
    asked = Asked(
        TASKS, Path(folder), CheckpointOptions(CHECKPOINT, device="cpu"), batch_size=BATCH_SIZE, limit=LIMIT, seed=SEED
    )
    variants = []
    for entry in ENTRIES:
        method, _, block = entry.removeprefix("llava_").partition("_L")
        variants.append(asked.variant(entry, method, **({"layer": int(block)} if block else {})))
    found = Runner(asked.study("slice", variants)).run().answers
    return {
        entry: {f"{task} {doc}": [answer.text, answer.margin] for (task, doc), answer in sorted(of.items())}
        for entry, of in found.items()
    }


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        FILE.write_text(json.dumps(answered(folder), indent=0, ensure_ascii=False) + "\n")
