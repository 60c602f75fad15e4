"""Training loops that several tools share."""
