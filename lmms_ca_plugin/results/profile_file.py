"""A layer profile's file: the blocks as `contrastive` takes them, and all that they rest on. Percent, not fractions.

`tests` holds one entry per candidate of `profiles.candidates`, `curves` one per block of the trunk.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lmms_ca_plugin.atomic import write_atomically
from lmms_ca_plugin.results.claims import Claim
from lmms_ca_plugin.results.profiles import BlockTest, Calibration, Point, Profile
from lmms_ca_plugin.results.reports import points
from lmms_ca_plugin.results.statistics import Interval


def write_profile(path: Path, profile: Profile) -> None:
    """Writes a profile as the file that `contrastive` takes as `profile=FILE`: the old one or the whole new one.

    Args:
        path: The file.
        profile: What it is to hold.
    """
    write_atomically(path, json.dumps(to_json(profile), indent=2, allow_nan=False) + "\n")


def to_json(profile: Profile) -> dict[str, Any]:
    """Lists what a profile's file holds.

    Args:
        profile: The profile.

    Returns:
        JSON-able; scores, drops, bounds and shares in percent.
    """
    return {
        **profile.layers.to_json(),
        "tests": [_test(test) for test in profile.tests],
        "curves": [
            {
                "block": at.block,
                "zero": _point(at.zero),
                "knockout": None if at.knockout is None else _point(at.knockout),
            }
            for at in profile.curves
        ],
        "calibration": _calibration(profile.calibration),
    }


def _test(test: BlockTest) -> dict[str, Any]:
    return {
        "role": test.role,
        "block": test.block,
        "verdict": test.verdict,
        "found": _claim(test.found),
        "confirmed": None if test.confirmed is None else _claim(test.confirmed),
    }


def _claim(claim: Claim) -> dict[str, Any]:
    return {
        "difference": points(claim.difference),
        "low": points(claim.low),
        "p_holm": claim.p_holm,
        "holds": claim.holds,
    }


def _point(point: Point) -> dict[str, Any]:
    return {
        "drop": points(point.drop),
        "ci95": [points(point.low), points(point.high)],
        "runaway": None if point.runaway is None else _interval(point.runaway),
    }


def _interval(interval: Interval) -> dict[str, Any]:
    return {"mean": points(interval.mean), "ci95": [points(interval.low), points(interval.high)]}


def _calibration(calibration: Calibration) -> dict[str, Any]:
    return {
        "vanilla": _interval(calibration.vanilla),
        "runaway": None if calibration.runaway is None else _interval(calibration.runaway),
        "documents": calibration.vanilla.n,
        "pictures": calibration.vanilla.n_clusters,
        "finding": asdict(calibration.finding),
        "confirming": asdict(calibration.confirming),
        "margin": points(calibration.rules.margin),
        "alpha": calibration.rules.alpha,
        "seed": calibration.rules.seed,
        "source": dict(calibration.source),
    }
