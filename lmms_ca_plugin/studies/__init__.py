"""Studies: what is asked of the engine, what is made of its answers, and which figure shows it."""
