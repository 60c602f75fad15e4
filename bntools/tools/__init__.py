"""The tools, one folder each: command.py and the method files."""
