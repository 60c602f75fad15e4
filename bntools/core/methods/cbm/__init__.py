"""Concept bottlenecks: the model, its file, what it is applied to, and what is measured of it."""
