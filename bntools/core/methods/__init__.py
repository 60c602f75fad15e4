"""What several tools need of one kind of artifact: reading it, applying it, scoring it."""
