"""What touches lmms-eval: the only folder that may import it."""
