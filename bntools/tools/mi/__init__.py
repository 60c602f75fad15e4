"""Mutual information of pairs of variables."""
