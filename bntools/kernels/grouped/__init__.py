"""Codes of a few bits in groups with a scale: packing, products on CPU and GPU."""
