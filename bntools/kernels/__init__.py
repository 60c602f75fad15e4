"""Numeric kernels: a plain reference, which is the specification, and fast versions beside it."""
