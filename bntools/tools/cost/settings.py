"""What is asked of an estimate."""

from __future__ import annotations

from dataclasses import dataclass

from bntools.core.errors import usage


@dataclass(frozen=True)
class Settings:
    """batches, contexts: every pair of them is a row. kv_bits: of a number in the cache, None for the model's type.

    dtype: of the arithmetic, None for the model's own. prompt, generate: tokens of one request, priced step by step.
    overlap: all of a step's compute and memory traffic at once, not layer after layer.
    """

    batches: tuple[int, ...] = (1,)
    contexts: tuple[int, ...] = ()
    kv_bits: float | None = None
    dtype: str | None = None
    prompt: int | None = None
    generate: int | None = None
    overlap: bool = False

    def __post_init__(self) -> None:
        if (self.prompt is None) != (self.generate is None):
            raise usage("--prompt and --generate are one request", "give both")


def positive_list(option: str, text: str) -> tuple[int, ...]:
    """Positive integers separated by commas; BnError (exit 2) on anything else."""
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise usage(f"{option} {text!r} is no list of numbers", f"{option} 1,8,64") from None
    if min(values) < 1 or max(values) > 1 << 40:
        raise usage(f"{option} {text!r}: sizes are positive", f"{option} 1,8,64")
    return values
