"""Attention: over chosen blocks of keys, and over keys and values packed as small integers."""
