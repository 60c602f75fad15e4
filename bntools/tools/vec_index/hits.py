"""Hits as lines of JSON, and ids as lines of text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bntools.core.errors import bad_input, usage
from bntools.core.methods.vector_index.index import Floats, Indices, VectorIndex
from bntools.core.methods.vector_index.searching import search
from bntools.tools.vec_index.settings import RERANK

_BATCH = 1024


class SearchOptions(NamedTuple):
    """How far to search: rows to re-rank, share of the vectors to scan, candidates to keep along a graph."""

    rerank: int | None = None
    probe: float | None = None
    ef: int | None = None


def lines(
    index: VectorIndex, queries: Floats, k: int, *, effort: SearchOptions, threads: int
) -> Iterator[str]:
    """One object a query: {query, ids, scores, exact}; scores are exact only where vectors are kept as float32."""
    depth = 0 if index.second is None else (effort.rerank or index.facts.get("rerank") or RERANK)
    exact = index.facts.get("code") == "f32"
    for start in range(0, len(queries), _BATCH):
        part = queries[start : start + _BATCH]
        hits = search(
            index, part, k, rerank=min(depth, len(index)), probe=effort.probe, ef=effort.ef, threads=threads
        )
        ids = index.ids[hits.rows].tolist()
        for number, (row, scores) in enumerate(zip(ids, hits.scores.tolist(), strict=True)):
            yield json.dumps(
                {
                    "query": start + number,
                    "ids": row,
                    "scores": [float(f"{s:.6g}") for s in scores],
                    "exact": exact,
                }
            )


def read_ids(path: str) -> Indices:
    """Whole numbers of a text file, one a line. Raises BnError: exit 2 where it cannot be read, 3 for other lines."""
    try:
        text = Path("/dev/stdin" if path == "-" else path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise usage(f"cannot read ids {path}: {why}", "check the path") from None
    ids = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            ids.append(int(line))
        except ValueError:
            raise bad_input(
                f"{path}, line {number}: {line[:40]!r} is no id", "one whole number a line"
            ) from None
    return np.array(ids, np.int64)
