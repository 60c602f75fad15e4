"""Say in four lines what is left of a model: how it goes on with a sentence before and after, its size, what is next.

usage: sentences.py ORIGINAL QUANTIZED [SCORES.json]    SCORES.json is what `bntools eval` printed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from bntools import open_model
from bntools.core.text.tokens import open_tokenizer

START = "The easiest way to learn a new language is to"
TOKENS = 24


def continued(source: str) -> tuple[str, int]:
    """The start of a sentence as a model goes on with it, the likeliest token each time, and the model's bytes."""
    model = open_model(source)
    tokenizer = open_tokenizer(model.files, model.config, model.label)
    network = model.build(torch.float32)
    ids = tokenizer.ids(START)
    with torch.no_grad():
        for _ in range(TOKENS):
            logits = network(torch.tensor([ids])).logits[0, -1]
            ids = [*ids, int(logits.argmax())]
    return " ".join(tokenizer.inner.decode(ids).split()), model.store.nbytes()


def main() -> None:
    original, quantized = sys.argv[1:3]
    before, size = continued(original)
    after, smaller = continued(quantized)
    scores = json.loads(Path(sys.argv[3]).read_text()) if len(sys.argv) > 3 else {}
    perplexities = [
        f" (perplexity {scores[key]:.1f})" if key in scores else ""
        for key in ("reference_perplexity", "perplexity")
    ]
    print(f"before: {before}{perplexities[0]}")
    print(f"after:  {after}{perplexities[1]}")
    print(f"size:   {size / 1e6:.1f} MB before, {smaller / 1e6:.1f} MB after")
    print(
        f"next:   bntools quantize {original} --budget 3.25 -o smaller.safetensors   # minutes, for the best 3 bits"
    )


if __name__ == "__main__":
    main()
