"""Encoders: how far a model's sentence embeddings are from a reference's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bntools.core.errors import bad_input
from bntools.core.progress import Step, no_step
from bntools.core.text.tokens import Tokenizer
from bntools.tools.eval.text.perplexity import mean_error


def sentences(
    documents: Sequence[str], limit: int | None, tokenizer: Tokenizer, longest: int
) -> list[list[int]]:
    """Token ids, special tokens added, of the lines of a text that have at least five words; about `limit` tokens."""
    texts, total = [], 0
    for line in "\n".join(documents).splitlines():
        if len(line.split()) < 5:
            continue
        ids = tokenizer.inner.encode(line).ids[:longest]
        texts.append(ids)
        total += len(ids)
        if limit is not None and total >= limit:
            break
    if len(texts) < 2:
        raise bad_input("the text has fewer than two lines of five words", "--text FILE")
    return texts


@torch.no_grad()
def embed(model: Any, lines: list[list[int]], step: Step = no_step) -> Tensor:
    """Mean-pooled, normalized embedding of each line: [n, width] float32."""
    device = next(model.parameters()).device
    rows = []
    for ids in lines:
        hidden = model.base_model(torch.tensor([ids], device=device)).last_hidden_state[0]
        rows.append(torch.nn.functional.normalize(hidden.float().mean(0), dim=0).cpu())
        step(len(ids))
    return torch.stack(rows)


def report(ours: Tensor, theirs: Tensor) -> dict[str, Any]:
    """Cosine of each embedding to the reference's, and how well pairwise similarities are kept."""
    cosine = (ours * theirs).sum(1).double()
    pairs = torch.triu_indices(len(ours), len(ours), 1)
    similar = [(e @ e.T)[pairs[0], pairs[1]].double() for e in (ours, theirs)]
    return {
        "cosine": {
            "mean": float(cosine.mean()),
            "se": mean_error(cosine, []),
            "p10": float(cosine.quantile(0.1)),
            "p50": float(cosine.quantile(0.5)),
            "min": float(cosine.min()),
        },
        "similarity_rms_error": float((similar[0] - similar[1]).square().mean().sqrt()),
        "sentences": len(ours),
    }
