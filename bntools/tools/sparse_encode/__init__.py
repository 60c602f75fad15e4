"""Codes of activations in a sparse dictionary."""
