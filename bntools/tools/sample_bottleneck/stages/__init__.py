"""Stages of one trajectory: their noise levels, solvers, what passes between them, and its checks."""
