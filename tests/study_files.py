"""What a study leaves, in a form in which two runs of it can be compared."""

import re

from lmms_ca_plugin.harness.journal import FILE


class Clock:
    """The harness's date of a study that has run, in place of `datetime`."""

    def __init__(self, finished):
        self.date = finished.results["vanilla"].name.removesuffix("_results.json")

    def now(self, _zone):
        return self

    def strftime(self, _form):
        return self.date


def contents(folder):
    """Every result and sample file, by its place, without what took how long."""
    taken = r'"(?:total_evaluation_time_seconds|start_time|end_time)": "?[\d.]+"?'
    rates = r'"[a-z_]*(?:elapsed|speed|latency|throughput)[a-z_]*": [\d.]+'
    times = re.compile(f"{taken}|{rates}")
    return {
        str(p.relative_to(folder)): times.sub("", p.read_text())
        for p in sorted(folder.rglob("*.json*"))
        if p.name != FILE
    }
