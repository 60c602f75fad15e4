"""Artifacts as plain model directories."""
