"""A real task from a dictionary: WordNet's definitions, a static text encoder, and both as the sources of a build."""
