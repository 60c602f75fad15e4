"""What every tool shares: artifacts, models, texts, reports. Knows no tool, prints nothing, never exits."""

EMBEDDED = "default:"
"""Name of the model inside the package."""
