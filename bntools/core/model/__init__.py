"""A model as tensors and a config, wherever it came from: opening it, its history, its subspaces."""
