"""Activations of models: hidden states at any layer and site, embeddings of texts and images."""
