"""Mutual information of arrays: one interface over the estimators, with a cap, an interval and flags."""
