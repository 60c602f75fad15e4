"""Activations from sparse codes."""
