"""Benchmarks of our own: one file per question asked. They need neither the harness nor a checkpoint."""
