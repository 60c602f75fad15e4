"""Scores of samples of generative models: distances of sets of images, and the computable scores of OneIG-Bench."""
