"""The plugin's side that faces lmms-eval; the only folder that imports it."""
