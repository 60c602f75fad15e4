"""Codes of vectors: product codebooks of unequal groups, locally adaptive scalars, and the search over them."""
