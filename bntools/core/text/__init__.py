"""Texts: documents, JSON lines, tokens."""
