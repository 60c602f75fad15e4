"""What decides a trained bottleneck."""

from __future__ import annotations

from dataclasses import dataclass

from bntools.core.errors import usage


@dataclass(frozen=True)
class Regressing:
    """betas: weights of the compression term; norm: `paper` or `repo`; width: of kernels, None for median distances.

    code: coordinates of the bottleneck; epochs and batch: of Adam at a constant rate.
    """

    target: str = "y"
    betas: tuple[float, ...] = (0.001, 0.01, 0.1)
    norm: str = "paper"
    width: float | None = 1.0
    code: int = 8
    epochs: int = 100
    batch: int = 128
    rate: float = 1e-3
    seed: int = 0


def parse_betas(text: str) -> tuple[float, ...]:
    """Numbers from 0 on, ascending, each once."""
    try:
        betas = tuple(sorted({float(word) for word in text.split(",")}))
    except ValueError:
        betas = (-1.0,)
    if not 0 <= betas[0] <= betas[-1] < float("inf"):
        raise usage(f"no weights {text!r}", "--beta 0.001,0.01,0.1")
    return betas


def parse_width(text: str) -> float | None:
    """A width of kernels in standard deviations; None for `median`."""
    if text == "median":
        return None
    try:
        width = float(text)
    except ValueError:
        width = 0.0
    if not 0 < width < float("inf"):
        raise usage(f"no width of kernels {text!r}", "median, or a number of standard deviations: 1")
    return width
