"""One script per scorer, each of which `evaluate.load` takes by path."""
