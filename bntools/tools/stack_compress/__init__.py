"""One file, any size: a stack of blocks in order of importance, every prefix of which is a model."""
