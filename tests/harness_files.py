"""Writes result and sample files in the harness's shape, as large and as broken as a test needs."""

import json
from pathlib import Path

import numpy as np


def task_samples(task, scores, metric="vqa_accuracy", clusters=None, answers=None, start=0):
    """Makes the samples of one task; a score of None is a failed document."""
    clusters = clusters if clusters is not None else range(len(scores))
    return [
        {
            "doc_id": start + i,
            "target": f"target {start + i}",
            "filtered_resps": answers[i] if answers else ("right" if score else "wrong"),
            "doc_hash": "0",
            metric: {"score": score, "cluster": str(cluster), "answers": [f"answer {start + i}"] * 10},
            "input": f"question {start + i}?",
        }
        for i, (score, cluster) in enumerate(zip(scores, clusters, strict=True))
    ]


def write_run(
    folder,
    tasks,
    date="20260101_000000",
    model="llava_vanilla",
    pretrained="org/llava",
    version=1.0,
    metric="vqa_accuracy",
    args="",
    record=None,
    config=None,
):
    """Writes one run: `tasks` maps a task to its samples."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    results, counts = {}, {}
    for task, samples in tasks.items():
        scores = [sample[metric]["score"] if isinstance(sample[metric], dict) else sample[metric] for sample in samples]
        whole = [score for score in scores if score is not None]
        results[task] = {"alias": task, f"{metric},none": float(np.mean(whole)), f"{metric}_stderr,none": "N/A"}
        counts[task] = {"original": len(samples), "effective": len(samples)}
        lines = "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
        (folder / f"{date}_samples_{task}.jsonl").write_text(lines, encoding="utf-8")
    content = {
        "results": results,
        "configs": {task: {"task": task, "test_split": "validation"} for task in tasks},
        "versions": dict.fromkeys(tasks, version),
        "higher_is_better": {task: {metric: True} for task in tasks},
        "n-samples": counts,
        "config": {
            "model": model,
            "model_args": f"pretrained={pretrained}{',' if args else ''}{args}",
            "batch_size": "1",
            "batch_sizes": [record] if record else [],
            "limit": None,
            "offset": 0,
            "random_seed": 0,
            "gen_kwargs": "",
            **(config or {}),
        },
        "date": date,
        "model_name": pretrained,
        "git_hash": "abc",
    }
    path = folder / f"{date}_results.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def flipped(scores, share, loss, seed):
    """Flips a share of right-or-wrong scores so that the mean changes by `-loss` in expectation."""
    generator = np.random.default_rng(seed)
    scores = np.asarray(scores, dtype=float)
    right, draw = scores == 1, generator.random(len(scores))
    mean = scores.mean()
    to_wrong, to_right = (share + loss) / 2 / mean, (share - loss) / 2 / (1 - mean)
    return np.where(np.where(right, draw < to_wrong, draw < to_right), 1 - scores, scores).tolist()
