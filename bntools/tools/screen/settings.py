"""What decides the result of a screening."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bntools.core.errors import usage

METHODS = ("auto", "kde", "bins", "knn", "xi", "pearson", "fftkde")
CONTROLS = ("bh", "by", "shadow")


@dataclass(frozen=True)
class Settings:
    """target: name of the outcome column. fdr: level of the false discovery rate. top: most columns to be written.

    outcome: `class`, `continuous`, or `auto` by its type and number of values. permutations: of the common null.

    None: 50,000, with which the rate of false discoveries was measured to hold.
    """

    target: str
    method: str = "auto"
    outcome: str = "auto"
    fdr: float | None = None
    top: int | None = None
    control: str = "bh"
    covariates: tuple[str, ...] = ()
    permutations: int | None = None
    bandwidth: float = 1.0
    bins: int | None = None
    neighbours: int = 3
    seed: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        if self.target in self.covariates:
            raise usage(f"{self.target} is the target and a covariate", "a column has one part")
        if self.method == "fftkde" and (self.fdr is not None or self.control != "bh"):
            raise usage("--method fftkde has no p-values, so there is no --fdr", "rank with --top N instead")
        if self.covariates and self.method in ("pearson", "fftkde"):
            raise usage(f"--covariates goes with ranks, not with --method {self.method}", "--method kde")

    def sized(self) -> Settings:
        """The same with the number of permutations in place of None."""
        return self if self.permutations else replace(self, permutations=50_000)

    @property
    def level(self) -> float:
        """Level of the false discovery rate; 0.1 where none is asked for."""
        return 0.1 if self.fdr is None else self.fdr
