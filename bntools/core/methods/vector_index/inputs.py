"""Vectors as users have them: rows of a file or stream, or the unembedding of a language model."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np

from bntools.core.datasets.activations import open_activations
from bntools.core.errors import bad_input
from bntools.core.methods.vector_index.exact import InMemory, Vectors
from bntools.core.methods.vector_index.index import Floats, Indices

_UNEMBEDDINGS = ("lm_head.weight", "embed_out.weight", "embed_tokens.weight", "wte.weight", "embed_in.weight")
"""Ends of names, the untied head first."""


class Opened(NamedTuple):
    """Rows, what to call them (a column `ids`, or None), and the history of the file they came from."""

    vectors: Vectors
    ids: Indices | None
    history: list[dict[str, Any]]
    label: str


def open_vectors(source: str, tensor: str | None = None) -> Opened:
    """Open rows by name: what activations are read from, or a model's directory, of which the unembedding is taken.

    Raises BnError: exit 2 for a path that is not there, 3 for what holds no rows.
    """
    if source != "-" and os.path.isfile(os.path.join(source, "config.json")):
        return _unembedding(source, tensor)
    rows = open_activations(source, tensor)
    ids = None
    if "ids" in rows.columns:
        ids = np.asarray(rows.column("ids"))
        if ids.dtype.kind not in "iu" or len(np.unique(ids)) != len(ids):
            raise bad_input(f"{rows.label}: ids are whole numbers, each once")
    return Opened(rows, None if ids is None else ids.astype(np.int64), rows.history, rows.label)


def read_queries(source: str, tensor: str | None, width: int, of: str) -> Floats:
    """All queries of a file, finite and of the width of what they are for. Raises BnError (exit 3)."""
    opened = open_vectors(source, tensor)
    if opened.vectors.width != width:
        what = f"{opened.label} has queries of {opened.vectors.width} coordinates, {of} {width}"
        raise bad_input(what, "embed both with one encoder")
    queries = opened.vectors.read(0, opened.vectors.rows)
    finite = np.isfinite(queries).all(1)
    if not finite.all():
        raise bad_input(f"{opened.label}: query {int(np.argmin(finite))} holds NaN or infinity")
    return queries


def _unembedding(folder: str, tensor: str | None) -> Opened:
    from bntools.core.model.open import open_model

    model = open_model(folder)
    names = list(model.entries)
    chosen = (
        tensor
        if tensor in names
        else next((n for end in _UNEMBEDDINGS for n in names if n.endswith(end)), None)
    )
    if chosen is None or (tensor is not None and tensor not in names):
        raise bad_input(f"{folder} has no tensor {tensor or 'of an unembedding'}", "--tensor NAME")
    return Opened(InMemory(model.tensor(chosen).float().numpy()), None, model.history, f"{folder}: {chosen}")
