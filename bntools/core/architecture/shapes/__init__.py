"""The weights and products of a causal language model, derived from its config.json alone."""
