"""Studies: plans of variants over tasks, and what comes of them as tables and figures."""
