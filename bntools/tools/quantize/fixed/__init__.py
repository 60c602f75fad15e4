"""Codes of a fixed number of bits: grids, methods, and the shares of a budget."""
