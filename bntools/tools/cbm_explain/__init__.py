"""Why a concept bottleneck decides as it does, and what corrected concepts would change."""
