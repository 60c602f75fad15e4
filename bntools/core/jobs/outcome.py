"""How a task ended, and what follows from it."""

from __future__ import annotations

from typing import NamedTuple

OUT_OF_MEMORY = 137  # 128 + SIGKILL, also what the kernel's killer leaves
FINAL = (2, 3, 5)  # usage, bad input, missing dependency: the same again
CANCELLED = "CANCELLED"


class Ended(NamedTuple):
    """code: None where nobody knows it; reason: the scheduler's word, or ours."""

    code: int | None
    reason: str

    @property
    def starved(self) -> bool:
        return self.code == OUT_OF_MEMORY or self.reason == "OUT_OF_MEMORY"

    @property
    def final(self) -> bool:
        """Whether trying again is of no use, or not wanted."""
        return self.code in FINAL or self.reason == CANCELLED

    def __str__(self) -> str:
        code = f"exit code {self.code}" if self.code is not None else ""
        return ", ".join(part for part in (code, self.reason) if part)


def exit_code(code: int) -> int:
    """As a shell has it: 128 + N for signal N."""
    return 128 - code if code < 0 else code
