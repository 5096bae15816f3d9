"""Benchmarks of our own: costs of methods and studies, speed of vanilla. They need neither harness nor checkpoint."""
