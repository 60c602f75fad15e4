"""Key-value caches in few bits: the plan, its codes, the cache of transformers that follows it, and its scores."""
