"""Sparse softmax regression on standardised scores: designs, the elastic-net path, pruning to an exact count."""
