"""How good a model still is: perplexity, divergence from a reference, multiple choice, embeddings."""
