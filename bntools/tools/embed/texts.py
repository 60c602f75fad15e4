"""Texts to token ids: documents packed into windows, or one row of ids a text."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import bad_input, usage
from bntools.core.text.tokens import Tokenizer

Ints = NDArray[np.int32]
_FEWEST = 2


class Windows(NamedTuple):
    """Windows of equal length: ids, number of the document and position within the window, [n, T] each."""

    ids: Ints
    doc: Ints
    pos: Ints


def read_texts(source: str, field: str, lines: bool) -> list[str]:
    """Documents of a file or of `-`: of .jsonl (or a stream of objects) the field of a line; of .txt a line, or all.

    Raises BnError: exit 2 for a path that is not there, 3 for no text, no UTF-8, or a line without the field.
    """
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise usage(f"cannot read text {source}: {error.strerror}", "check the path") from None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise bad_input(f"{source} is not UTF-8 text (byte {error.start})", "is it a text file?") from None
    if source.endswith(".jsonl") or (source == "-" and text.lstrip().startswith("{")):
        texts = [
            _field(source, n, line, field) for n, line in enumerate(text.splitlines(), 1) if line.strip()
        ]
    elif lines:
        texts = [line for line in text.splitlines() if line.strip()]
    else:
        texts = [text] if text.strip() else []
    if not texts:
        raise bad_input(f"{source} holds no text")
    return texts


def _field(source: str, number: int, line: str, field: str) -> str:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise bad_input(f"{source}, line {number}: {error}") from None
    text = value.get(field) if isinstance(value, dict) else None
    if not isinstance(text, str):
        shown = ", ".join(value) if isinstance(value, dict) else type(value).__name__
        raise bad_input(
            f"{source}, line {number} has no text {field!r}", f"it has {shown}; --field names another"
        )
    return text


def pack(texts: list[str], tokenizer: Tokenizer, window: int, limit: int | None) -> list[Windows]:
    """Documents one behind the other, end-of-text between, cut into windows; the last one may be shorter.

    A model that wants a beginning-of-text token gets it in front of every window. Raises BnError (exit 3) for a
    text without tokens.
    """
    stream: list[int] = []
    owner: list[int] = []
    for number, text in enumerate(texts):
        ids = tokenizer.ids(text)
        if ids and tokenizer.eos is not None and number + 1 < len(texts):
            ids = [*ids, tokenizer.eos]
        stream += ids
        owner += [number] * len(ids)
        if limit is not None and len(stream) >= limit:
            break
    stream, owner = (values[:limit] if limit else values for values in (stream, owner))
    bos = tokenizer.window_bos
    body = window - (bos is not None)
    if len(stream) < _FEWEST or body < 1:
        raise bad_input(f"the text has {len(stream)} tokens", "give at least a line")
    whole = len(stream) // body * body
    parts = [(stream[:whole], owner[:whole], body)] if whole else []
    if len(stream) - whole >= _FEWEST:
        parts.append((stream[whole:], owner[whole:], len(stream) - whole))
    return [_windows(ids, docs, length, bos) for ids, docs, length in parts]


def separate(texts: list[str], tokenizer: Tokenizer, window: int) -> list[Windows]:
    """Every document by itself, cut to its first window, as windows of one row each."""
    bos = tokenizer.window_bos
    parts = []
    for number, text in enumerate(texts):
        ids = tokenizer.ids(text)[: window - (bos is not None)] or [tokenizer.eos or 0]
        parts.append(_windows(ids, [number] * len(ids), len(ids), bos))
    return parts


def _windows(ids: list[int], docs: list[int], length: int, bos: int | None) -> Windows:
    rows, owner = (np.array(values, np.int32).reshape(-1, length) for values in (ids, docs))
    if bos is not None:
        rows = np.concatenate([np.full((len(rows), 1), bos, np.int32), rows], 1)
        owner = np.concatenate([owner[:, :1], owner], 1)
    pos = np.broadcast_to(np.arange(rows.shape[1], dtype=np.int32), rows.shape)
    return Windows(rows, owner, np.ascontiguousarray(pos))
