"""Embedding tables as artifacts: fields and their vocabularies, stored forms, heads' logits, scores."""
