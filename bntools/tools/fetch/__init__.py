"""Models and data sets that package registries serve, checked by sha256."""
