"""What decides the result of a sparse fit."""

from __future__ import annotations

from dataclasses import dataclass

from bntools.core.errors import usage
from bntools.kernels.penalised.penalties import SHAPES

FAMILIES = ("gaussian", "logistic", "poisson")


@dataclass(frozen=True)
class Settings:
    """target: name of the outcome column. shape: a of SCAD or gamma of MCP. ratio: smallest penalty over the largest.

    choose: `ebic` or `cv`, the criterion of the step that is reported. solver: `cd` coordinate descent, `ag` the
    accelerated gradient as published.
    """

    target: str
    penalty: str = "mcp"
    family: str = "auto"
    shape: float | None = None
    steps: int = 60
    ratio: float | None = None
    folds: int = 10
    choose: str = "ebic"
    ebic_gamma: float = 0.5
    solver: str = "cd"
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"mcp": 1.0, "scad": 2.0, "lasso": -1.0}[self.penalty]
        if self.shape is not None and self.shape <= least:
            raise usage(
                f"--shape {self.shape:g} is not above {least:g}, where {self.penalty} is convex nowhere",
                f"--shape {SHAPES[self.penalty]:g}",
            )
        if self.shape is not None and self.penalty == "lasso":
            raise usage("the lasso has no --shape", "leave it out")
        if self.solver == "ag" and self.family not in ("auto", "gaussian"):
            raise usage(f"--solver ag fits gaussian outcomes, not {self.family}", "--solver cd")

    @property
    def concavity(self) -> float:
        return SHAPES[self.penalty] if self.shape is None else self.shape
