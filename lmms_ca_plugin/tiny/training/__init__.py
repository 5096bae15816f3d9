"""Training of the bundled small checkpoint: first the vision tower learns to see, then the language model to answer."""
