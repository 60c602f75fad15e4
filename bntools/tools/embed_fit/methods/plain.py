"""Tables that train in one go: full, hash, unified, robe, qr, mde. Each builds a lookup and says how it is stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bntools.core.methods.embedding.stored import Arrays
from bntools.kernels.embedding.hashing import buckets
from bntools.tools.embed_fit.lookups import Chunked, Composed, Lookup
from bntools.tools.embed_fit.problem import Problem
from bntools.tools.embed_fit.settings import Settings

WHOLE = 32  # fields of so few values are never hashed or split


class Form(NamedTuple):
    """A lookup, and what makes arrays and facts of its fields of it once it is trained."""

    lookup: Lookup
    store: Callable[[], tuple[Arrays, list[dict[str, Any]], dict[str, Any]]]


def full_size(problem: Problem, settings: Settings) -> int:
    """Numbers of the full table: what a budget is a share of."""
    return problem.values * settings.dim


def row_table(problem: Problem, d: int, seed: int) -> Form:
    """One row of d numbers a value, and one of zeros for unseen values, which no gradient reaches."""
    starts, zeros, at = [], [], 0
    for seen, every in problem.sizes():
        starts.append((np.minimum(np.arange(every), seen) * d + at)[:, None])
        zeros.append(at + seen * d)
        at += (seen + 1) * d
    lookup = Chunked(starts, at, d, stored=problem.values * d, seed=seed)
    for zero in zeros:
        lookup.flat[zero : zero + d] = 0

    def store() -> tuple[Arrays, list[dict[str, Any]], dict[str, Any]]:
        arrays = {
            f"table.{f.name}": E for f, E in zip(problem.fields, tables(problem, lookup, d), strict=True)
        }
        return arrays, [{"form": "rows", "width": d} for _ in problem.fields], {}

    return Form(lookup, store)


def tables(problem: Problem, lookup: Lookup, d: int) -> list[NDArray[np.float32]]:
    """The rows of each field, from the flat array of `row_table`."""
    result, at = [], 0
    for seen, _ in problem.sizes():
        result.append(lookup.flat[at : at + seen * d].reshape(seen, d).copy())
        at += (seen + 1) * d
    return result


def full(problem: Problem, budget: float, settings: Settings, seed: int) -> Form | None:
    """The widest full table within the budget; None where not one number a value fits."""
    d = int(settings.dim * budget + 1e-9)
    least = 1 if settings.model == "dcn" else 2
    return row_table(problem, d, seed) if d >= least else None


def hash_rows(problem: Problem, budget: float, settings: Settings, seed: int) -> Form | None:
    """max(8, ceil(r n_t)) rows a field, each value in one of them; fields of few values are whole."""
    d, whole = settings.dim, [seen <= WHOLE for seen, _ in problem.sizes()]
    limit = full_size(problem, settings) * budget / d

    def rows_at(share: float) -> list[int]:
        return [
            n if w else min(n, max(8, int(np.ceil(share * n))))
            for (n, _), w in zip(problem.sizes(), whole, strict=True)
        ]

    share = _largest(lambda s: sum(rows_at(s)) <= limit)
    if share is None:
        return None
    counts, starts, at, zeros = rows_at(share), [], 0, []
    for t, ((seen, every), count) in enumerate(zip(problem.sizes(), counts, strict=True)):
        rows = (
            np.minimum(np.arange(every), seen)
            if whole[t]
            else buckets(problem.digests[t], count, problem.seed, t)
        )
        starts.append((rows * d + at)[:, None])
        zeros.append(at + count * d)
        at += (count + 1) * d
    lookup = Chunked(starts, at, d, stored=sum(counts) * d, seed=seed)
    for zero in zeros:
        lookup.flat[zero : zero + d] = 0

    def store() -> tuple[Arrays, list[dict[str, Any]], dict[str, Any]]:
        arrays, facts = {}, []
        for f, zero, count, w in zip(problem.fields, zeros, counts, whole, strict=True):
            arrays[f"table.{f.name}"] = lookup.flat[zero - count * d : zero].reshape(count, d).copy()
            facts.append({"form": "rows" if w else "hashed", "width": d})
        return arrays, facts, {"seed": problem.seed}

    return Form(lookup, store)


def unified(problem: Problem, budget: float, settings: Settings, seed: int) -> Form | None:
    """One table for all fields; dim / chunk lookups a value, each under a hash of its own (arXiv 2305.12102)."""
    c, k = settings.chunk, settings.dim // settings.chunk
    count = int(full_size(problem, settings) * budget / c)
    if count < 2:
        return None
    starts = [
        np.stack([buckets(words, count, problem.seed, t, j) * c for j in range(k)], 1)
        for t, words in enumerate(problem.digests)
    ]
    lookup = Chunked(starts, count * c, c, stored=count * c, seed=seed)

    def store() -> tuple[Arrays, list[dict[str, Any]], dict[str, Any]]:
        facts = [{"form": "chunks", "width": k * c, "lookups": k} for _ in problem.fields]
        return {"table": lookup.flat.reshape(count, c).copy()}, facts, {"seed": problem.seed, "chunk": c}

    return Form(lookup, store)


def robe(problem: Problem, budget: float, settings: Settings, seed: int) -> Form | None:
    """One flat array for all fields; chunks begin anywhere in it (arXiv 2108.02191)."""
    c, k = settings.chunk, settings.dim // settings.chunk
    size = int(full_size(problem, settings) * budget)
    if size < 2 * c:
        return None
    starts = [
        np.stack([buckets(words, size - c + 1, problem.seed, t, j) for j in range(k)], 1)
        for t, words in enumerate(problem.digests)
    ]
    lookup = Chunked(starts, size, c, stored=size, seed=seed)

    def store() -> tuple[Arrays, list[dict[str, Any]], dict[str, Any]]:
        facts = [{"form": "robe", "width": k * c, "lookups": k} for _ in problem.fields]
        return {"table": lookup.flat.copy()}, facts, {"seed": problem.seed, "chunk": c}

    return Form(lookup, store)


def quotient_remainder(problem: Problem, budget: float, settings: Settings, seed: int) -> Form | None:
    """R[v mod m] * Q[v div m] (arXiv 1909.02107); fields of few values are whole."""
    d, limit = settings.dim, full_size(problem, settings) * budget / settings.dim

    def pairs(share: float) -> list[tuple[int, int]]:
        result = []
        for n, _ in problem.sizes():
            m = n if n <= WHOLE else max(int(np.ceil(share * n)), int(np.ceil(np.sqrt(n))))
            result.append((min(m, n), 0 if min(m, n) == n else -(-n // m)))
        return result

    share = _largest(lambda s: sum(m + q for m, q in pairs(s)) <= limit)
    if share is None:
        return None
    counts = pairs(share)
    shapes = {f"R{t}": (m, d) for t, (m, _) in enumerate(counts)}
    shapes |= {f"Q{t}": (q, d) for t, (_, q) in enumerate(counts) if q}
    seen = torch.tensor([n for n, _ in problem.sizes()])

    def compute(p: dict[str, Tensor], ids: Tensor) -> Tensor:
        out = []
        for t, (m, q) in enumerate(counts):
            v = ids[:, t].clamp(max=int(seen[t]) - 1)
            e = torch.nn.functional.embedding(v % m, p[f"R{t}"])
            if q:
                e = e * (
                    1 + torch.nn.functional.embedding(v // m, p[f"Q{t}"])
                )  # the prior's mean is the factor 1
            out.append(e * (ids[:, t] < seen[t])[:, None])
        return torch.cat(out, 1)

    lookup = Composed(shapes, [d] * len(counts), compute, seed=seed)

    def store() -> tuple[Arrays, list[dict[str, Any]], dict[str, Any]]:
        arrays, facts = {}, []
        for t, (f, (_, q)) in enumerate(zip(problem.fields, counts, strict=True)):
            first = "remainder" if q else "table"
            arrays[f"{first}.{f.name}"] = lookup.parameters[f"R{t}"].numpy().copy()
            if q:
                arrays[f"quotient.{f.name}"] = 1 + lookup.parameters[f"Q{t}"].numpy()
            facts.append({"form": "product" if q else "rows", "width": d})
        return arrays, facts, {}

    return Form(lookup, store)


def mixed_dimensions(problem: Problem, budget: float, settings: Settings, seed: int) -> Form | None:
    """Widths that go with the popularity of a block of values to the power 0.3, projected up (arXiv 1909.11810)."""
    d, limit = settings.dim, full_size(problem, settings) * budget
    blocks, popularity = [], []
    for f in problem.fields:
        ends = np.unique(np.round(np.cumsum(settings.blocks) * len(f.values)).astype(int))
        counts = np.diff(ends, prepend=0)
        counts = counts[counts > 0]
        blocks.append(counts.tolist())
        popularity.append([part.mean() for part in np.split(f.counts, np.cumsum(counts)[:-1])])
    top = max(max(p) for p in popularity)

    def widths(share: float) -> list[list[int]]:
        return [[int(np.clip(round(share * d * (x / top) ** 0.3), 1, d)) for x in p] for p in popularity]

    def size(w: list[list[int]]) -> int:
        return sum(
            n * k + (k * d if k < d else 0)
            for ns, ks in zip(blocks, w, strict=True)
            for n, k in zip(ns, ks, strict=True)
        )

    share = _largest(lambda s: size(widths(s)) <= limit, high=64.0)
    if share is None:
        return None
    chosen, shapes = widths(share), {}
    for t, (ns, ks) in enumerate(zip(blocks, chosen, strict=True)):
        for b, (n, k) in enumerate(zip(ns, ks, strict=True)):
            shapes[f"E{t}.{b}"] = (n, k)
            if k < d:
                shapes[f"P{t}.{b}"] = (k, d)

    def compute(p: dict[str, Tensor], ids: Tensor) -> Tensor:
        out = []
        for t, ns in enumerate(blocks):
            whole = [
                p[f"E{t}.{b}"] @ p[f"P{t}.{b}"] if f"P{t}.{b}" in p else p[f"E{t}.{b}"]
                for b in range(len(ns))
            ]
            table = torch.cat([*whole, torch.zeros(1, d)])
            out.append(torch.nn.functional.embedding(ids[:, t].clamp(max=sum(ns)), table))
        return torch.cat(out, 1)

    lookup = Composed(shapes, [d] * len(blocks), compute, seed=seed)
    for name, p in lookup.parameters.items():
        if name[0] == "P":
            p *= 4 / np.sqrt(p.shape[0])  # rows of about the length that fresh rows of a full table have

    def store() -> tuple[Arrays, list[dict[str, Any]], dict[str, Any]]:
        arrays, facts = {}, []
        for t, (f, ns) in enumerate(zip(problem.fields, blocks, strict=True)):
            for b in range(len(ns)):
                arrays[f"block{b}.{f.name}"] = lookup.parameters[f"E{t}.{b}"].numpy().copy()
                if f"P{t}.{b}" in lookup.parameters:
                    arrays[f"projection{b}.{f.name}"] = lookup.parameters[f"P{t}.{b}"].numpy().copy()
            facts.append({"form": "mixed", "width": d, "blocks": ns})
        return arrays, facts, {}

    return Form(lookup, store)


def _largest(fits: Callable[[float], bool], high: float = 1.0) -> float | None:
    """The largest share that fits, by bisection; None where none does."""
    if fits(high):
        return high
    low = 0.0
    if not fits(low):
        return None
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
