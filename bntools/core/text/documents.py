"""Texts: the ones that ship with the package, and the user's own."""

from __future__ import annotations

import json
from pathlib import Path

from bntools.core.errors import bad_input, usage

DATA = Path(__file__).resolve().parents[2] / "data"


def default_text(kind: str) -> str:
    """The embedded `eval` or `calib` text: public-domain prose, nothing in common."""
    return (DATA / f"{kind}.txt").read_text(encoding="utf-8")


def tiny_model_dir() -> Path:
    """Directory of the embedded model."""
    return DATA / "tiny"


def read_text(path: str) -> str:
    """The documents of a file as one text, a blank line between."""
    return "\n\n".join(read_documents(path))


def read_documents(path: str) -> list[str]:
    """A text file as one document; of a .jsonl file the `text` of every line.

    Raises BnError: exit 2 if it cannot be opened, 3 if it is empty, not UTF-8 or has a line without text.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise usage(f"cannot read text {path}: {error.strerror}", "check the path") from None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise bad_input(f"{path} is not UTF-8 text (byte {error.start})", "is it a text file?") from None
    documents = [text]
    if path.endswith(".jsonl"):
        documents = [
            _line_text(path, number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()
        ]
    if not any(document.strip() for document in documents):
        raise bad_input(f"{path} holds no text")
    return documents


def _line_text(path: str, number: int, line: str) -> str:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise bad_input(f"{path}, line {number}: {error}") from None
    text = value.get("text") if isinstance(value, dict) else None
    if not isinstance(text, str):
        raise bad_input(f'{path}, line {number} has no "text"', 'one object a line: {"text": "..."}')
    return text
