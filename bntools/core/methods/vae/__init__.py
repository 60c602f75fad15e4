"""Autoencoders with a Gaussian code: networks, the artifact, scores of axes, measures of disentanglement."""
