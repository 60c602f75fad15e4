"""Concept bottleneck models from embeddings: `build`."""
