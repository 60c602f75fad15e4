"""Nearest neighbours of points."""
