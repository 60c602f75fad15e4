"""What a table is made of: parts of columns, and readers of each format."""
