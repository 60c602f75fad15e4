"""Embedding tables: gathers and their gradients, Adam with a prior on every row, heads, spectral codes, hashes."""
