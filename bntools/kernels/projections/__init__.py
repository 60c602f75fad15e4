"""Random linear maps from few numbers to many."""
