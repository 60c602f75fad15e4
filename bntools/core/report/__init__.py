"""What reports and pictures have in common."""
