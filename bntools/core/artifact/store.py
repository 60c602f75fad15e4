"""What a checkpoint is to the code that reads it: entries by name, and their tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from bntools.core.artifact.header import Entry

if TYPE_CHECKING:
    from torch import Tensor


class TensorStore(Protocol):
    """Where the tensors of a checkpoint lie."""

    entries: dict[str, Entry]

    def tensor(self, name: str) -> Tensor: ...

    def nbytes(self) -> int: ...

    def sha256(self) -> str: ...
