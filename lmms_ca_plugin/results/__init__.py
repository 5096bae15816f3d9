"""What becomes of the harness's output: rows with intervals, differences with verdicts, tables, an audit.

Neither torch nor the harness is imported here.
"""
