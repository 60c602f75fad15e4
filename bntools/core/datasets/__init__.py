"""Labelled data, tables, activations, and where fetched ones are cached."""
