"""BLEU of token ids, the same figures as NLTK and sacrebleu, many sentences at a time."""
