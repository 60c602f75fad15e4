"""What a run will take, for --dry-run."""
