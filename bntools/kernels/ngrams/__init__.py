"""Counting n-grams of sentences and what follows from the counts."""
