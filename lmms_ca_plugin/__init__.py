"""lmms-ca: training-free methods for multimodal LLMs, as a plugin of lmms-eval."""
