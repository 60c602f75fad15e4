"""Weights as base and planes of one bit each."""
