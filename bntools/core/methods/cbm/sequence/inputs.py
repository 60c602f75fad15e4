"""Sequences as rows: windows with a column `doc` that says which sequence each belongs to."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import bad_input
from bntools.core.methods.cbm.inputs import Embeddings, read_columns


@dataclass(frozen=True)
class Sequences:
    """rows: windows in order of sequence and time, with a label each; starts [N + 1]: where each sequence begins.

    docs [N]: the sequences' numbers, as the column `doc` has them.
    """

    rows: Embeddings
    starts: NDArray[np.int64]
    docs: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.docs)

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.starts)

    @property
    def whole(self) -> Embeddings:
        """One row a sequence, its first window: for what asks of labels alone."""
        first = self.starts[:-1]
        labels = None if self.rows.labels is None else self.rows.labels[first]
        return replace(self.rows, x=self.rows.x[first], labels=labels, names=[])


def read_sequences(source: str) -> Sequences:
    """Windows x [M, d] with columns doc and, where they are out of order, pos. A sequence has one label.

    Raises BnError (exit 3) without `doc`, and where windows of one sequence differ in label.
    """
    rows, columns = read_columns(source)
    if "doc" not in columns:
        raise bad_input(
            f"{rows.label} has no column doc", "doc [rows]: the sequence that each window belongs to"
        )
    doc = columns["doc"].astype(np.int64)
    order = np.lexsort((columns.get("pos", np.arange(len(doc))), doc))
    docs, starts = np.unique(doc[order], return_index=True)
    labels = None if rows.labels is None else rows.labels[order]
    names = [rows.names[i] for i in order] if rows.names else []
    starts = np.append(starts, len(doc)).astype(np.int64)
    if labels is not None:
        uneven = labels != np.repeat(labels[starts[:-1]], np.diff(starts))
        if uneven.any():
            what = f"{rows.label}: windows of sequence {doc[order][uneven][0]} have several labels"
            raise bad_input(what, "one label a sequence")
    return Sequences(replace(rows, x=rows.x[order], labels=labels, names=names), starts, docs)
