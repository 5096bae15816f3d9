"""The engine: the only caller of the model."""
