"""Sparse dictionaries of activations: training by six methods, and names for their latents."""
