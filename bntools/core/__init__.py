"""What every tool shares: artifacts, models, texts, reports. Knows no tool, prints nothing, never exits."""
