"""Entropy coding of levels: rANS, trellises, step classes."""
