"""Concept layers, and which of their concepts a bottleneck gets."""
