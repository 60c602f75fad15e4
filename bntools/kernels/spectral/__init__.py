"""Fields in the cosine basis: bands, and how a noisy field passes from one resolution to another."""
