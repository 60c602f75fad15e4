"""How much of the data's mass shares a row: within a field and across fields, and what the first layer makes of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from bntools.core.methods.embedding.stored import StoredTables
from bntools.kernels.embedding.hashing import buckets
from bntools.tools.embed_fit.problem import Problem


def collisions(problem: Problem, stored: StoredTables) -> dict[str, Any]:
    """Sum over pairs of values in one row of f_i f_j, f the share of training rows; expected if rows were uniform.

    intra: pairs of a field; inter: pairs of two fields, only where one table serves all. cosine: mean |cos| of two
    fields' blocks of the first layer's weights, since collisions of fields are noise only as far as these agree.
    """
    facts, count = stored.facts, len(problem.train.y)
    shares = [f.counts / count for f in problem.fields]
    one_table = "table" in stored.arrays
    intra = inter = expected = expected_inter = 0.0
    lookups = max(one.get("lookups", 1) for one in stored.fields)
    for j in range(lookups):
        masses, rows = [], 1
        for t, (f, share) in enumerate(zip(problem.fields, shares, strict=True)):
            rows = _rows(stored, t)
            if stored.fields[t]["form"] == "rows":
                continue
            where = buckets(
                problem.digests[t][: len(f.values)], rows, facts["seed"], t, *([j] if one_table else [])
            )
            mass = np.bincount(where, share, rows)
            own = float(np.square(share).sum())
            intra += (float(np.square(mass).sum()) - own) / 2
            expected += (float(share.sum()) ** 2 - own) / 2 / rows
            masses.append(mass)
        if one_table and masses:
            total = np.sum(masses, 0)
            inter += (float(np.square(total).sum()) - sum(float(np.square(m).sum()) for m in masses)) / 2
            sums = [float(m.sum()) for m in masses]
            expected_inter += (sum(sums) ** 2 - sum(s * s for s in sums)) / 2 / rows
    each = 1 / lookups
    result: dict[str, Any] = {
        "intra": {"mass": intra * each, "expected": expected * each},
        "inter": {"mass": inter * each, "expected": expected_inter * each},
    }
    if "W1" in stored.head:
        result["cosine"] = _cosine(stored)
    return result


def _rows(stored: StoredTables, t: int) -> int:
    form = stored.fields[t]["form"]
    table = stored.arrays["table" if form in ("chunks", "robe") else f"table.{stored.names[t]}"]
    return len(table) - stored.facts["chunk"] + 1 if form == "robe" else len(table)


def _cosine(stored: StoredTables) -> float:
    W = stored.head["W1"].numpy()
    ends = np.cumsum([one["width"] for one in stored.fields])
    blocks = [b.reshape(-1) for b in np.split(W, ends[:-1])]
    blocks = [b / max(float(np.linalg.norm(b)), 1e-30) for b in blocks if b.size == blocks[0].size]
    pairs = [abs(float(a @ b)) for i, a in enumerate(blocks) for b in blocks[:i]]
    return float(np.mean(pairs)) if pairs else 0.0
