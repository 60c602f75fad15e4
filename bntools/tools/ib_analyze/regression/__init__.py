"""Regression through an information bottleneck: networks trained by CS-IB and by what it is compared with."""
