"""What an artifact or model holds."""
