"""A matrix of the checkpoint, as it was stored before it was coded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stored:
    """shape, dtype: as stored; transposed: stored [in, out]."""

    shape: tuple[int, ...]
    dtype: str
    transposed: bool

    @property
    def rows(self) -> int:
        """Outputs."""
        return self.shape[1] if self.transposed else self.shape[0]

    @property
    def cols(self) -> int:
        """Inputs."""
        return self.shape[0] if self.transposed else self.shape[1]
