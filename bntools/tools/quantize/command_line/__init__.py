"""What stands on the command line: options, presets, and the settings they make."""
