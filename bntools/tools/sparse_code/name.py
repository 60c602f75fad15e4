"""Names for latents: the words whose vectors point the way of a latent's direction, and by how much."""

from __future__ import annotations

from typing import Any

import numpy as np

from bntools import terminal
from bntools.core.datasets.activations import Activations
from bntools.core.errors import bad_input
from bntools.core.methods.sparse_dictionary import Dictionary

LEAST = 0.5
"""Cosine below which a latent stays unnamed: random words of a vocabulary reach 0.3 to 0.4 by chance."""
_SHOWN = 40
_BLOCK = 1024


def name(dictionary: Dictionary, words: Activations, top: int = 3) -> dict[str, Any]:
    """The `top` nearest words of each latent, with cosine and margin to the next; unnamed below 0.5.

    words: rows in the space of the dictionary, with a column `names`. Both are centred, by the dictionary's mean and
    by the words' own. Raises BnError (exit 3) for another width, or words without names.
    """
    d = dictionary.D.shape[1]
    if words.width != d:
        raise bad_input(
            f"{words.label} has words of {words.width} numbers, {dictionary.label} latents of {d}"
        )
    if "names" not in words.columns:
        raise bad_input(
            f"{words.label} has no column names", "bntools embed MODEL --text words.txt -o vocab.safetensors"
        )
    if words.rows <= top:
        raise bad_input(f"{words.label} has {words.rows} words, --top {top} needs more")
    vectors = words.load("drop")[0]
    names = words.column("names")
    vectors = vectors - vectors.mean(0)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    latents = []
    for start in range(0, len(dictionary.D), _BLOCK):
        cosines = dictionary.D[start : start + _BLOCK] @ vectors.T
        best = np.argsort(-cosines, axis=1, kind="stable")[:, : top + 1]
        values = np.take_along_axis(cosines, best, 1)
        for row, (chosen, value) in enumerate(zip(best, values, strict=True)):
            latents.append(_entry(dictionary, start + row, [str(names[j]) for j in chosen[:top]], value))
    count = dictionary.count
    order = np.argsort(-count, kind="stable") if count is not None else np.arange(len(latents))
    named = [entry for entry in latents if entry["name"] is not None]
    cosine = np.array([entry["cosine"][0] for entry in latents])
    return {
        "kind": "sparse-code-names", "latents": [latents[i] for i in order], "named": len(named),
        "unnamed": len(latents) - len(named), "words": words.rows, "threshold": LEAST,
        "cosine": {f"p{q}": float(np.percentile(cosine, q)) for q in (5, 50, 95)},
        "baseline": {"random_direction_cosine_p50": _chance(vectors, d)},
    }  # fmt: skip


def _entry(dictionary: Dictionary, index: int, words: list[str], cosines: Any) -> dict[str, Any]:
    first = float(cosines[0])
    return {
        "latent": index, "name": words[0] if first >= LEAST else None, "words": words,
        "cosine": [round(float(v), 4) for v in cosines[:-1]], "margin": round(float(cosines[-2] - cosines[-1]), 4),
        "rows": int(dictionary.count[index]) if dictionary.count is not None else None,
    }  # fmt: skip


def _chance(vectors: Any, d: int) -> float:
    """Median of the best cosine of a random direction: what chance names a latent with."""
    random = np.random.default_rng(0).standard_normal((256, d)).astype(np.float32)
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    return float(np.median((random @ vectors.T).max(1)))


def draw(console: Any, report: dict[str, Any]) -> None:
    three = terminal.three
    rows = [
        [str(e["latent"]), e["name"] or "unnamed", ", ".join(e["words"]), three(e["cosine"][0]), three(e["margin"]),
         f"{e['rows']:,}" if e["rows"] is not None else "-"]
        for e in report["latents"][:_SHOWN]
    ]  # fmt: skip
    console.print(terminal.table(["latent", "name", "nearest words", "cosine", "margin", "rows"], rows))
    chance = three(report["baseline"]["random_direction_cosine_p50"])
    console.print(
        f"{report['named']:,} named, {report['unnamed']:,} unnamed; median cosine {three(report['cosine']['p50'])}, "
        f"of a random direction {chance}"
    )
