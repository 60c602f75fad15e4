"""The kind `vector-index`: what it holds, how it is searched, written and read."""
