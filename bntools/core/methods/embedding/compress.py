"""Spectral compression of stored tables, without data: from rows, counts and metrics to prefixes of coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.methods.embedding.decode import pack
from bntools.core.methods.embedding.stored import Arrays, StoredTables
from bntools.kernels.embedding import spectral

Floats = NDArray[Any]


class Source(NamedTuple):
    """A table to compress: its name, rows E [n, d], how often each occurs, and the metric of errors, if known."""

    name: str
    E: Floats
    counts: NDArray[Any]
    metric: Floats | None = None


class SpectralCode(NamedTuple):
    """Arrays of a compressed table, facts of its form, the order its rows are stored in."""

    arrays: Arrays
    facts: dict[str, Any]
    order: NDArray[np.int64]


def least_bits(sources: Sequence[Source], bits: int) -> float:
    """Bits of the fixed part: means and the numbers of rows."""
    return sum(spectral.price(bits, s.E.shape[1]).mean + 32 for s in sources)


def compress(
    sources: Sequence[Source], budget_bits: float, bits: int, extra: float = 0.0
) -> list[SpectralCode] | None:
    """Codes of all tables within the budget, importance weighed over all of them; None where the means do not fit.

    extra: bits of the budget that are spent elsewhere, on an order of rows that must be kept.
    """
    spectra = [spectral.spectrum(s.E, s.counts, s.metric) for s in sources]
    prices = [spectral.price(bits, s.E.shape[1]) for s in sources]
    lengths = spectral.allocate(spectra, prices, budget_bits - extra)
    if lengths is None:
        return None
    return [_code(s, one, r, bits) for s, one, r in zip(sources, spectra, lengths, strict=True)]


def _code(source: Source, one: spectral.TableSpectrum, lengths: NDArray[np.int64], bits: int) -> SpectralCode:
    """The longest rows first, those of one length in their old order."""
    order, axes = np.argsort(-lengths, kind="stable"), int(lengths.max(initial=0))
    name, C = source.name, one.C[order, :axes]
    counts = np.bincount(lengths, minlength=axes + 1)
    inside = np.arange(axes) < lengths[order][:, None]
    weights = np.maximum(source.counts[order], 1e-3)
    small = np.float32 if bits == 32 else np.float16
    B, grid = one.B[:axes], np.zeros((axes, 2), np.float16)
    size = np.maximum(np.abs(B).max(1), 1e-30) if axes else np.ones(0)
    if bits < 32:  # float16 has a short range: axes of size 1, coordinates that carry the length
        B, C = B / size[:, None], C * size
    codes = np.zeros(C.shape, np.uint8)
    for k in range(axes) if bits < 32 else ():
        rows = inside[:, k]
        codes[rows, k], *grid[k] = spectral.quantize(C[rows, k], weights[rows], bits)
    arrays: Arrays = {f"lengths.{name}": counts.astype(np.uint32)}
    start = 0
    for r in range(axes, 0, -1):
        stop = start + int(counts[r])
        if stop > start:
            part = (
                C[start:stop, :r].astype(np.float32)
                if bits == 32
                else pack(codes[start:stop, :r].reshape(-1), bits)
            )
            arrays[f"rank{r}.{name}"] = part
        start = stop
    arrays |= {f"basis.{name}": B.astype(small), f"mean.{name}": one.mean.astype(small)}
    if bits < 32:
        arrays[f"grid.{name}"] = grid
    facts = {
        "form": "spectral",
        "width": source.E.shape[1],
        "bits": bits,
        "axes": axes,
        "kept": int(lengths.sum()),
    }
    return SpectralCode(arrays, facts, order)


def compressed(stored: StoredTables, codes: Sequence[SpectralCode], budget: float) -> StoredTables:
    """The artifact whose tables are the codes; vocabularies stand in the order of the rows."""
    arrays: Arrays = {}
    vocab: list[Any] = []
    fields = []
    for one, code, values in zip(stored.fields, codes, stored.vocab, strict=True):
        arrays |= code.arrays
        vocab.append([values[i] for i in code.order] if values is not None else None)
        fields.append({"name": one["name"], "values": one["values"], **code.facts})
    return replace(stored, arrays=arrays, vocab=vocab,
                   facts={**stored.facts, "method": "spectral", "budget": budget, "fields": fields})  # fmt: skip
