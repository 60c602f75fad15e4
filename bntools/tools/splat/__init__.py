"""Rendering coded elements and asking for directions, in code space."""
