"""Edits of a concept bottleneck that need no training: prune, scale, normalise, adapt."""
