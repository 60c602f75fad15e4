"""BLEU statistics of token ids given as tensors, nested tensors or lists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bntools.core.errors import bad_input
from bntools.kernels.ngrams import ngram_stats

Ids = Tensor | Sequence[Any]
Ints = NDArray[np.integer]


def bleu_stats(
    hyp: Ids,
    refs: Ids,
    hyp_len: Ids | None = None,
    ref_len: Ids | None = None,
    pad_id: int | None = None,
    eos_id: int | None = None,
    max_n: int = 4,
) -> Tensor:
    """Statistics [B, 2 + 2 max_n] int32: hyp_len, closest ref_len, correct 1..n, total 1..n (sacrebleu's order).

    hyp: ids [B, L]; refs: ids [B, R, M], or [B, M] for one reference each. Both may be nested tensors or lists
    of ragged lists (refs: a list of references a row, each row with its own number). Lengths: as given in
    hyp_len [B] and ref_len [B, R] (-1: no such reference), or the full width; then a sentence ends before its
    first eos_id; then trailing pad_id are stripped, inner ones are tokens. Rows add up to corpus statistics.
    CPU tensors are read in place; the result is on hyp's device. Raises BnError on input that does not fit.
    """
    device = hyp.device if isinstance(hyp, Tensor) else torch.device("cpu")
    ids, own = _hypotheses(hyp)
    others, theirs = _references(refs)
    own, theirs = _given(hyp_len, own, "hyp_len"), _given(ref_len, theirs, "ref_len")
    own, theirs = _ended(ids, own, pad_id, eos_id), _ended(others, theirs, pad_id, eos_id)
    try:
        stats = ngram_stats(ids, own, others, theirs, max_n)
    except ValueError as error:
        raise bad_input(
            str(error), "hyp is [B, L], refs is [B, R, M] or [B, M], one row a sentence"
        ) from error
    return torch.from_numpy(stats).to(device)


def _hypotheses(hyp: Ids) -> tuple[Ints, Ints]:
    """Ids [B, L] and lengths [B]."""
    if isinstance(hyp, Tensor) and not hyp.is_nested:
        ids = _array(hyp)
        if ids.ndim != 2:
            raise bad_input(f"hyp has shape {list(ids.shape)}", "give [batch, length]")
        return ids, np.full(len(ids), ids.shape[1])
    return _padded(_rows(hyp))


def _references(refs: Ids) -> tuple[Ints, Ints]:
    """Ids [B, R, M] and lengths [B, R], -1 where a row has fewer references."""
    if isinstance(refs, Tensor) and not refs.is_nested:
        ids = _array(refs)
        if ids.ndim not in (2, 3):
            raise bad_input(f"refs has shape {list(ids.shape)}", "give [batch, references, length]")
        ids = ids[:, None] if ids.ndim == 2 else ids
        return ids, np.full(ids.shape[:2], ids.shape[2])
    rows = list(_rows(refs))
    if isinstance(refs, Tensor) and refs.dim() == 2:
        rows = [[row] for row in rows]
    if any(_is_id(reference) for row in rows for reference in row):
        raise bad_input(
            "refs is a list of lists of ids", "give a list of references a row: [[[5, 7], [5, 8]], ...]"
        )
    counts = np.array([len(row) for row in rows], np.int64)
    flat, lengths = _padded(list(chain.from_iterable(rows)))
    there = np.arange(counts.max(initial=1)) < counts[:, None]
    ids = np.zeros((*there.shape, flat.shape[1]), np.int64)
    theirs = np.full(there.shape, -1)
    ids[there], theirs[there] = flat, lengths
    return ids, theirs


def _is_id(value: object) -> bool:
    return isinstance(value, int) or (isinstance(value, Tensor) and value.ndim == 0)


def _rows(ids: Ids) -> Sequence[Any]:
    return ids.unbind() if isinstance(ids, Tensor) else ids


def _padded(rows: Iterable[Any]) -> tuple[Ints, Ints]:
    """Ragged rows of ids as [B, longest], zeros behind, and their lengths [B]."""
    parts = [_array(row) for row in rows]
    if any(part.ndim != 1 for part in parts):
        raise bad_input("a sentence is not a flat list of ids", "each sentence is a list of integers")
    lengths = np.array([len(part) for part in parts], np.int64)
    ids = np.zeros((len(parts), lengths.max(initial=0)), np.int64)
    if len(parts):
        ids[np.arange(ids.shape[1]) < lengths[:, None]] = np.concatenate(parts)
    return ids, lengths


def _array(ids: Any) -> Ints:
    """A tensor's memory, or a list of integers; empty lists count as integers."""
    if isinstance(ids, Tensor):
        array = ids.detach().cpu().numpy()
    else:
        try:
            array = np.asarray(ids)
        except (ValueError, OverflowError) as error:
            raise bad_input(f"not a list of ids: {error}", "ids are integers of at most 64 bits") from error
    if not array.size and array.dtype.kind == "f" and not isinstance(ids, Tensor):
        return array.astype(np.int64)
    if not np.can_cast(array.dtype, np.int64) or array.dtype.kind == "b":
        raise bad_input(f"ids are {array.dtype}", "token ids are integers of at most 64 bits")
    return array


def _given(lengths: Ids | None, known: Ints, name: str) -> Ints:
    """Lengths the caller gave, in the shape of those the ids have."""
    if lengths is None:
        return known
    array = _array(lengths)
    if name == "ref_len" and array.ndim == 1 and known.shape[1:] == (1,):
        array = array[:, None]
    if array.shape != known.shape:
        raise bad_input(f"{name} has shape {list(array.shape)}", f"the ids need {list(known.shape)}")
    if (array > known).any():
        raise bad_input(f"{name} is up to {array.max()}, longer than its sentence", "lengths count ids")
    return array


def _ended(ids: Ints, lengths: Ints, pad_id: int | None, eos_id: int | None) -> Ints:
    """Lengths up to the first eos_id, then without trailing pad_id; ids [..., width]."""
    width = ids.shape[-1]
    if not width:
        return lengths
    if eos_id is not None:
        ends = ids == eos_id
        lengths = np.minimum(lengths, np.where(ends.any(-1), ends.argmax(-1), width))
    if pad_id is not None:
        kept = (ids != pad_id) & (np.arange(width) < lengths[..., None])
        last = np.where(kept.any(-1), width - kept[..., ::-1].argmax(-1), 0)
        lengths = np.where(lengths < 0, lengths, last)
    return lengths
