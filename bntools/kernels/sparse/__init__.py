"""Sparse codes: selection, decoding, gradients by latent, pursuit, sums of coded elements."""
