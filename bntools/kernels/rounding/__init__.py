"""Choosing codes: error feedback, searched grids."""
