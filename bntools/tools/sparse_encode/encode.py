"""Batches of rows to codes, by encoder or pursuit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from bntools.core.datasets.activations import Activations
from bntools.core.errors import usage
from bntools.core.methods.sparse_codes import NORM, CodePiece
from bntools.core.methods.sparse_dictionary import Dictionary, Inference
from bntools.core.work.shards import Shard

BATCH = 4096


class Request(NamedTuple):
    """How to encode, which part of the rows, and what to do with rows that are not finite."""

    inference: Inference
    shard: Shard | None
    bad: str
    threads: int


def resolve(
    dictionary: Dictionary, candidates: int | None, k: int | None, budget: str | None, signed: bool
) -> Inference:
    """The way to encode: the dictionary's, changed by what was asked for. Raises BnError (exit 2)."""
    own = dictionary.inference
    chosen = own.candidates if candidates is None else candidates
    share = own.budget
    if budget is not None:
        name, equals, number = budget.partition("=")
        try:
            share = float(number)
        except ValueError:
            share = -1.0
        if name != "fvu" or not equals or not 0 <= share < 1:
            raise usage(f"--budget {budget} is not fvu=F with F from 0 to 1", "--budget fvu=.2")
    wanted = own.k if k is None else k
    if not chosen and (k is not None or budget is not None or signed):
        raise usage("--k, --budget and --signed are for pursuit", "--pursuit 96")
    if wanted >= len(dictionary.D):
        raise usage(f"--k {wanted}: the dictionary has {len(dictionary.D)} latents")
    if chosen and chosen < wanted:
        raise usage(f"--pursuit {chosen} is fewer than k, {wanted}", "more candidates than are taken")
    return Inference(chosen, wanted, share, own.nonnegative and not signed)


def pieces(
    dictionary: Dictionary, rows: Activations, request: Request, advance: Callable[[int], None]
) -> Iterator[CodePiece]:
    """Codes batch by batch, with the columns of the rows and their lengths; of a shard, its batches alone."""
    starts = list(range(0, rows.rows, BATCH))
    chosen = request.shard.of([1] * len(starts)) if request.shard else range(len(starts))
    for index in chosen:
        a, b = starts[index], min(starts[index] + BATCH, rows.rows)
        x = rows.read(a, b)
        columns = {name: rows.column(name, a, b) for name in rows.columns}
        keep = rows.finite(x, a, request.bad)
        if keep is not None:
            x, columns = x[keep], {name: column[keep] for name, column in columns.items()}
        with np.errstate(over="ignore"):
            columns[NORM] = np.linalg.norm(dictionary.normalise(x), axis=1).astype(np.float16)
        yield CodePiece(dictionary.encode(x, request.inference, request.threads), columns)
        advance(b - a)
