"""How text is scored: windows by protocol, perplexity, divergence from a reference, and the output head."""
