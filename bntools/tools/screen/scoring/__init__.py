"""Scores of columns against an outcome, with p-values."""
