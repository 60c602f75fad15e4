"""Energy-based concept bottlenecks: one energy over rows, concepts and classes, and the questions it answers."""
