"""Where sentences come from: JSON lines of ids or texts, stored statistics, tensors in safetensors files.

Lines of ids are counted without torch, whose import costs more than counting a hundred thousand of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import bad_input, usage
from bntools.kernels.ngrams import cpu as ngrams_cpu
from bntools.kernels.ngrams.cpu import FlatSentences
from bntools.tools.bleu_gpu import stream

if TYPE_CHECKING:
    from torch import Tensor

    from bntools.core.artifact.reader import Artifact

ROWS = 4096
"""Rows of a tensor counted at a time."""


@dataclass(frozen=True)
class Reading:
    """How to read: where sentences end, orders to count, metrics beside BLEU, device, what to do with bad lines."""

    orders: int
    eos_id: int | None = None
    pad_id: int | None = None
    also: tuple[str, ...] = ()
    device: str = "cpu"
    skip: stream.Skip = stream.refuse
    encode: Any = None
    threads: int = 1

    @property
    def ends(self) -> dict[str, int | None]:
        return {"eos_id": self.eos_id, "pad_id": self.pad_id}


Batch = tuple[NDArray[Any], dict[str, NDArray[np.float64]]]
"""Statistics, and the values of the other metrics."""


def encoder(spec: str) -> Any:
    """Function from texts to ids, by the tokenizer of a model."""
    from bntools.core.model.open import open_model
    from bntools.core.text.tokens import open_tokenizer

    model = open_model(spec)
    inner = open_tokenizer(model.files, model.config, model.label).inner
    return lambda texts: [encoding.ids for encoding in inner.encode_batch(texts, add_special_tokens=False)]


def from_pairs(file: BinaryIO, reading: Reading) -> Iterator[Batch]:
    """Lines with hypotheses and references."""
    if reading.encode is None:
        parsed = stream.pairs(file, reading.skip)
    else:
        batches = stream.batches(file, stream.texts, reading.skip)
        parsed = (stream.encoded(batch, reading.encode) for batch in batches)
    for pairs in parsed:
        if reading.also or reading.device != "cpu":
            import torch

            yield _counted({k: torch.from_numpy(v) for k, v in pairs._asdict().items()}, reading)
        else:
            yield _counted_here(pairs, reading), {}


def _counted_here(pairs: stream.Pairs, reading: Reading) -> NDArray[np.int32]:
    """`bleu_stats` of flat pairs, without torch."""
    sides = (
        ngrams_cpu.cut(FlatSentences(ids, cu[:-1], np.diff(cu)), **reading.ends)
        for ids, cu in ((pairs.hyp, pairs.hyp_cu), (pairs.refs, pairs.ref_cu))
    )
    rows = pairs.ref_rows[:-1], pairs.ref_rows[1:]
    return ngrams_cpu.pair_stats(*sides, *rows, reading.orders, reading.threads)


def from_stats(file: BinaryIO, reading: Reading) -> Iterator[Batch]:
    """Lines that --stats wrote."""
    for batch in stream.batches(file, stream.stored(reading.orders), reading.skip):
        yield stream.table(batch), {}


def from_samples(file: BinaryIO, group: int, reading: Reading) -> Iterator[Batch]:
    """Lines with samples, `group` to a group, scored against each other."""
    parse = stream.sample if reading.encode is None else stream.sample_text
    waiting: list[Any] = []
    count = 0
    for batch in stream.batches(file, parse, reading.skip):
        waiting += batch if reading.encode is None else reading.encode(batch)
        ready = len(waiting) // group * group
        count += len(batch)
        if ready:
            yield _counted_samples(waiting[:ready], group, reading)
            waiting = waiting[ready:]
    if waiting:
        raise bad_input(f"{count} samples do not divide into groups of {group}", "each group needs as many")


def _counted_samples(samples: Sequence[Any], group: int, reading: Reading) -> Batch:
    """Statistics of each sample against its group; distinct-1 and -2 of each."""
    length = np.array([len(sample) for sample in samples], np.int64)
    ids = np.fromiter(chain.from_iterable(samples), np.int64, int(length.sum()))
    flat = ngrams_cpu.cut(FlatSentences(ids, length.cumsum() - length, length), **reading.ends)
    stats = ngrams_cpu.others_stats(flat, group, reading.orders, reading.threads)
    each = np.arange(len(samples))
    different = ngrams_cpu.distinct_ngrams(flat, each, each + 1, 2, reading.threads)
    total = np.maximum(flat.length[:, None] - np.arange(2), 1)
    return stats, {f"distinct-{n}": different[:, n - 1] / total[:, n - 1] for n in (1, 2)}


def from_tensors(hyp: str, refs: str, reading: Reading) -> Iterator[Batch]:
    """Two safetensors files: ids [B, L], [B, M] or [B, R, M]; lengths, if any, under hyp_len and ref_len."""
    from bntools.core.artifact.reader import open_path

    with open_path(hyp) as one, open_path(refs) as two:
        (ids, length), (others, lengths) = _ids(one, "hyp"), _ids(two, "ref")
        if len(ids) != len(others):
            raise bad_input(
                f"{len(ids)} rows in {hyp} and {len(others)} in {refs}", "one row a sentence in both"
            )
        for start in range(0, len(ids), ROWS):
            rows = slice(start, start + ROWS)
            parts = {"hyp_len": length, "ref_len": lengths}
            given = {name: None if part is None else part[rows] for name, part in parts.items()}
            yield _counted({"hyp": ids[rows], "refs": others[rows], **given}, reading)


def _ids(source: Artifact, side: str) -> tuple[Tensor, Tensor | None]:
    """The only tensor of a file beside its lengths, or the one named hyp, ref or refs."""
    length = f"{side}_len"
    names = [name for name in source.names() if name not in ("hyp_len", "ref_len")]
    named = [name for name in names if name in (side, side + "s")]
    if len(named or names) != 1:
        hint = f"name the ids {side!r}" if names else "ids [batch, length]"
        raise bad_input(f"{source.label} holds {len(names)} tensors that could be ids", hint)
    ids = source.tensor((named or names)[0])
    if ids.ndim not in ((2,) if side == "hyp" else (2, 3)):
        raise bad_input(f"{source.label}: ids of shape {list(ids.shape)}", "[batch, length]")
    return ids, source.tensor(length) if length in source.names() else None


def _counted(sentences: dict[str, Any], reading: Reading) -> Batch:
    """Statistics and other metrics of tensors, as `bleu_stats` takes them."""
    from torch import Tensor

    from bntools.tools.bleu_gpu.overlap import METRICS
    from bntools.tools.bleu_gpu.stats import bleu_stats

    given = {**sentences, **reading.ends}
    also = {name: METRICS[name](**given).numpy() for name in reading.also}
    if reading.device != "cpu":
        given = {k: v.to(reading.device) if isinstance(v, Tensor) else v for k, v in given.items()}
    return bleu_stats(**given, max_n=reading.orders).cpu().numpy(), also


def stored_stats(path: str, orders: int) -> NDArray[np.int32]:
    """All statistics of a file that --stats wrote."""
    try:
        with open(path, "rb") as file:
            parts = [stats for stats, _ in from_stats(file, Reading(orders))]
    except OSError as error:
        raise usage(f"cannot open {path}: {error.strerror}", "a file that --stats wrote") from None
    if not parts:
        raise bad_input(f"{path}: no statistics", "a file that --stats wrote")
    return np.concatenate(parts)
