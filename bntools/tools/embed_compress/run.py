"""Compress the tables of an artifact, or one weight of a model, within a budget, beside what a sceptic would try."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import bad_input, usage
from bntools.core.methods.embedding.compress import Source, SpectralCode, compress, compressed, least_bits
from bntools.core.methods.embedding.decode import table_of
from bntools.core.methods.embedding.stored import StoredTables

Floats = NDArray[Any]


def sources_of(stored: StoredTables) -> list[Source]:
    """Tables with the counts and metrics that lie beside them. Raises BnError (exit 3) where rows are hashed."""
    result = []
    for t, one in enumerate(stored.fields):
        name = one["name"]
        if one["form"] in ("hashed", "chunks", "robe", "perceptron"):
            raise bad_input(
                f"the rows of {name} are shared by hashes: there is no table", "embed-fit --method full"
            )
        counts = stored.arrays.get(f"counts.{name}")
        counts = np.ones(one["values"]) if counts is None else counts
        result.append(Source(name, table_of(stored, t), counts, stored.arrays.get(f"metric.{name}")))
    return result


def foreign(name: str, E: Floats, counts: Floats | None) -> tuple[StoredTables, list[Source]]:
    """A weight [rows, columns] of any model as a field whose values are the numbers of its rows."""
    if E.ndim != 2:
        raise bad_input(f"{name} has the shape {list(E.shape)}", "name a weight of two dimensions")
    if not np.isfinite(E).all():
        raise bad_input(f"{name} has entries that are not finite", "is the file whole?")
    if counts is None:
        counts = np.ones(len(E))
    if len(counts) != len(E):
        raise bad_input(
            f"{len(counts):,} counts for {len(E):,} rows of {name}", "--counts with one number a row"
        )
    if not np.isfinite(counts).all() or counts.min() < 0 or not counts.any():
        raise bad_input("counts are numbers of occurrences, 0 or more, not all 0", "--counts FILE")
    facts = {
        "method": "full",
        "budget": 1.0,
        "model": None,
        "task": None,
        "at_least": None,
        "fields": [{"name": name, "values": len(E), "form": "rows", "width": E.shape[1], "numbered": True}],
    }
    return StoredTables(facts, {}, [None]), [Source(name, E, counts)]


def embed_compress(
    stored: StoredTables, sources: list[Source], budget: float, bits: int = 32
) -> tuple[StoredTables, dict[str, Any]]:
    """The compressed artifact and the report of bntools-embed-compress(1).

    budget: share of the tables' numbers; each then has `bits` bits. Raises BnError (exit 2) for one that cannot hold
    the means, naming the least.
    """
    numbers = sum(s.E.size for s in sources)
    numbered = [bool(one.get("numbered")) for one in stored.fields]
    width = [2 if len(s.E) <= 1 << 16 else 4 for s in sources]
    extra = sum(8 * w * len(s.E) for s, w, n in zip(sources, width, numbered, strict=True) if n)
    codes = compress(sources, numbers * budget * bits, bits, extra)
    if codes is None:
        least = (least_bits(sources, bits) + extra) / (numbers * bits)
        raise usage(
            f"a budget of {budget:.3g} cannot hold the means and the index",
            f"--budget {least * 1.05:.2g} at least",
        )
    small = compressed(stored, codes, budget)
    for one, code, keep, w in zip(small.fields, codes, numbered, width, strict=True):
        if keep:
            place = np.empty(len(code.order), np.uint16 if w == 2 else np.uint32)
            place[code.order] = np.arange(len(code.order))
            small.arrays[f"order.{one['name']}"] = place
            one["numbered"] = True
    return small, _report(small, sources, _in_order(codes, small), (budget, bits))


def _report(
    small: StoredTables, sources: list[Source], tables: list[Floats], how: tuple[float, int]
) -> dict[str, Any]:
    size, (budget, bits) = small.nbytes(), how
    bytes_ = size["embedding"] + size["index"]
    before = sum(s.E.size * 4 for s in sources)
    fields = [
        {"name": s.name, "values": len(s.E), "width": s.E.shape[1], "kept": one["kept"], "axes": one["axes"],
         "error": error([s], [E])}
        for s, E, one in zip(sources, tables, small.fields, strict=True)
    ]  # fmt: skip
    return {
        "kind": "embed-compress", "method": "spectral", "budget": budget, "bits": bits, "fields": fields,
        "metric": all(s.metric is not None for s in sources),
        "stored": {k: size[k] for k in ("embedding", "index", "vocab")}, "bytes_before": before,
        "ratio": before / max(bytes_, 1), "error": error(sources, tables),
        "baselines": baselines(sources, bytes_),
    }  # fmt: skip


def _in_order(codes: list[SpectralCode], small: StoredTables) -> list[Floats]:
    """Rows in the order of the sources, where a vocabulary was put into another."""
    result = []
    for t, code in enumerate(codes):
        E = table_of(small, t)
        if small.vocab[t] is not None:
            back = np.empty(len(code.order), np.int64)
            back[code.order] = np.arange(len(code.order))
            E = E[back]
        result.append(E)
    return result


def error(sources: list[Source], tables: list[Floats]) -> float:
    """Sum of f (e - e')^T G (e - e') over that of e' = the field's mean; G is 1 where no metric is known."""
    wrong = whole = 0.0
    for s, E in zip(sources, tables, strict=True):
        f = np.asarray(s.counts, np.float64)
        D, C = s.E.astype(np.float64) - E, s.E - (f[:, None] * s.E).sum(0) / max(f.sum(), 1e-30)
        G = np.eye(E.shape[1]) if s.metric is None else s.metric.astype(np.float64)
        wrong += float((f * np.einsum("nd,de,ne->n", D, G, D, optimize=True)).sum())
        whole += float((f * np.einsum("nd,de,ne->n", C, G, C, optimize=True)).sum())
    return wrong / max(whole, 1e-300)


def baselines(sources: list[Source], size: int) -> dict[str, float | None]:
    """The same error at no fewer bytes: one rank for all rows (float16), the largest entries (float32 and a byte of
    gap), rows rounded to 2 to 8 bits; None where the bytes do not do.
    """
    rows, columns = sum(len(s.E) for s in sources), sources[0].E.shape[1]
    numbers = sum(s.E.size for s in sources)
    rank = int(size / 2 // (rows + columns * len(sources)))
    bits = [b for b in (2, 3, 4, 5, 6, 7, 8) if numbers * b / 8 + 4 * rows <= size]
    keep = int(size / 5)
    largest = np.sort(np.concatenate([np.abs(s.E).reshape(-1) for s in sources]))[::-1]
    floor = largest[keep - 1] if 0 < keep < len(largest) else 0.0
    return {
        "low_rank": error(sources, [_low_rank(s, rank) for s in sources]) if rank else None,
        "prune": error(sources, [np.where(np.abs(s.E) >= floor, s.E, 0) for s in sources]) if keep else None,
        "round": error(sources, [_rounded(s.E, bits[-1]) for s in sources]) if bits else None,
    }


def _low_rank(source: Source, rank: int) -> Floats:
    f = np.maximum(np.asarray(source.counts, np.float64), 1e-3)
    mean = (f[:, None] * source.E).sum(0) / f.sum()
    C = source.E - mean
    _, V = np.linalg.eigh((f[:, None] * C).T @ C)
    V = V[:, ::-1][:, :rank]
    return mean + (C @ V) @ V.T


def _rounded(E: Floats, bits: int) -> Floats:
    low, high = E.min(1, keepdims=True), E.max(1, keepdims=True)
    step = np.maximum((high - low) / ((1 << bits) - 1), 1e-30)
    return low + np.rint((E - low) / step) * step
