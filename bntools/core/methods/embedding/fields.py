"""Fields: which values a column has, in the order of their frequency, and rows as numbers of values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]
MISSING = "<missing>"


class TableField(NamedTuple):
    """A field's values, most frequent first, and how often each occurs among the training rows."""

    name: str
    values: list[str]
    counts: NDArray[np.int64]


class Encoded(NamedTuple):
    """Rows as numbers of values [N, fields]; from len(values) on they count the unseen texts of the field."""

    ids: Ids
    unseen: list[list[str]]

    def coverage(self, fields: Sequence[TableField]) -> list[float]:
        """Share of rows whose value was seen in training, a field."""
        return [float((self.ids[:, t] < len(f.values)).mean()) for t, f in enumerate(fields)]


def distinct(column: NDArray[Any]) -> tuple[list[str], NDArray[np.int64]]:
    """The distinct values of a column as texts, and which of them each row has.

    Whole numbers read alike as integers, floats or text; NaN and the empty text are `<missing>`.
    """
    values, index = np.unique(column, return_inverse=True)
    texts = [_text(value) for value in values.tolist()]
    if len(set(texts)) < len(texts):
        rank = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        index = np.array([rank[text] for text in texts])[index]
        texts = list(rank)
    return texts, index.reshape(-1)


def _text(value: Any) -> str:
    if isinstance(value, float):
        if value != value:
            return MISSING
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    return MISSING if value == "" or value is None else str(value)


def fit_fields(columns: Mapping[str, NDArray[Any]]) -> list[TableField]:
    """The vocabulary of each column, from training rows alone; ties of frequency in the order of the texts."""
    fields = []
    for name, column in columns.items():
        texts, index = distinct(column)
        counts = np.bincount(index, minlength=len(texts))
        order = sorted(range(len(texts)), key=lambda i: (-counts[i], texts[i]))
        fields.append(TableField(name, [texts[i] for i in order], counts[order]))
    return fields


def encode(fields: Sequence[TableField], columns: Mapping[str, NDArray[Any]]) -> Encoded:
    """Rows as numbers of values; a text that training never saw gets a number of its own behind the vocabulary."""
    ids, unseen = [], []
    for field in fields:
        known = {text: i for i, text in enumerate(field.values)}
        texts, index = distinct(columns[field.name])
        new = [text for text in texts if text not in known]
        known |= {text: len(field.values) + i for i, text in enumerate(new)}
        ids.append(np.array([known[text] for text in texts], np.int32)[index])
        unseen.append(new)
    return Encoded(np.stack(ids, 1), unseen)


def joined(
    fields: Sequence[TableField], parts: Sequence[Mapping[str, NDArray[Any]]]
) -> tuple[list[Ids], list[list[str]]]:
    """Several tables encoded with common numbers of their unseen texts."""
    whole = {f.name: np.concatenate([part[f.name] for part in parts]) for f in fields}
    encoded = encode(fields, whole)
    ends = np.cumsum([len(next(iter(part.values()))) for part in parts])
    return np.split(encoded.ids, ends[:-1]), encoded.unseen
