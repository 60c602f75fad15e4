"""Levels of any size behind an entropy coder."""
