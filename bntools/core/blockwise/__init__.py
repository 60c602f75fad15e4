"""Walking a model with one block in memory: loading, hooks, second moments, replay."""
