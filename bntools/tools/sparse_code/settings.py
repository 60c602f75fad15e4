"""What decides the bytes of a dictionary."""

from __future__ import annotations

from dataclasses import dataclass

from bntools.core.errors import usage

METHODS = ("topk", "batchtopk", "matryoshka", "relu", "jumprelu", "gated")
CENTERS = ("mean", "median", "none")
BASE_WIDTH, BASE_RATE = 2304, 1e-3
"""Latents at which the learning rate was chosen, and that rate; for others it goes with the root of the number."""
MANY_ROWS = 1_000_000
"""Rows from which a dictionary is 8 times as wide as its input rather than 4 times."""


@dataclass(frozen=True)
class Settings:
    """method: one of METHODS. k: latents a row. latents: in all, or None for `expand` times the width.

    tokens: rows to train on, None for two passes. rate: Adam's, None by width. outliers: rows longer than so many times
    the median are set aside, 0 keeps all. holdout: rows at the end that are not trained on. dead_after: rows without
    use after which a latent counts as dead. aux: weight of AuxK. candidates: of pursuit, 0 for the encoder alone.
    """

    method: str = "topk"
    k: int = 32
    latents: int | None = None
    expand: int | None = None
    tokens: int | None = None
    batch: int = 1024
    rate: float | None = None
    center: str = "mean"
    outliers: float = 10.0
    holdout: int | None = None
    dead_after: int | None = None
    aux: float = 1 / 32
    candidates: int = 96
    exact: bool = False
    bad: str = "raise"
    seed: int = 0

    def width(self, d: int, rows: int) -> int:
        """Number of latents m. Raises BnError (exit 2) where k or the candidates do not fit it."""
        expand = self.expand or (8 if rows > MANY_ROWS else 4)
        m = self.latents or expand * d
        if not 1 <= self.k < m:
            raise usage(
                f"--k {self.k} does not fit {m} latents",
                "1 to one less than the latents; --expand gives more",
            )
        if self.candidates and self.candidates < self.k:
            what = f"--pursuit {self.candidates} is fewer than --k {self.k}"
            raise usage(what, "more candidates than are taken, or 0 for the encoder alone")
        return m

    def learning_rate(self, m: int) -> float:
        return self.rate or BASE_RATE * (BASE_WIDTH / m) ** 0.5


def validate(settings: Settings) -> None:
    """Raises BnError (exit 2) for values no run can have."""
    if settings.method not in METHODS:
        raise usage(f"no method {settings.method!r}", f"one of {', '.join(METHODS)}")
    if settings.k < 1 or settings.batch < 1:
        raise usage(f"--k {settings.k} --batch {settings.batch}: both are at least 1")
