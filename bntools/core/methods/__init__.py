"""Methods whose artifacts more than one tool reads."""
