"""Concept bottlenecks over sequences of windows (MoTIF): attention over time, a channel for each concept."""
