"""Attention in place of a model's own: among the important tokens of a prefill, and over packed rows."""
