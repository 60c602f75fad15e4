"""What decides the result of a mixed fit."""

from __future__ import annotations

from dataclasses import dataclass

from bntools.core.errors import usage

TAILS = ("gauss", "q", "row")


@dataclass(frozen=True)
class Settings:
    """fixed: terms joined by +, `1` for the intercept alone. random: terms `1+x|group`, `1|a/b` nested.

    tails: `gauss`; `q`, a q-Gaussian law of each group as a whole; `row`, t errors of each row. q: fixed instead of
    fitted. solver of `q`: `bfgs`, `ecme` or `cg`. l1: penalty of the fixed effects for `cg`.
    """

    target: str
    fixed: str = "1"
    random: tuple[str, ...] = ()
    tails: str = "gauss"
    reml: bool = False
    nu: float | None = None
    solver: str = "bfgs"
    l1: float = 0.0
    level: float = 0.95

    def __post_init__(self) -> None:
        if not self.random:
            raise usage("no --random term", "--random '1|GROUP', or '1+x|GROUP' for random slopes")
        if self.reml and self.tails != "gauss":
            raise usage(f"--reml is for Gaussian errors, not --tails {self.tails}", "leave it out")
        if self.nu is not None and self.tails == "gauss":
            raise usage("--nu goes with --tails q or row", "--tails q")
        if (self.solver != "bfgs" or self.l1) and self.tails != "q":
            raise usage("--solver and --l1 go with --tails q", "--tails q")
        if self.l1 and self.solver != "cg":
            raise usage("--l1 goes with --solver cg", "--solver cg")
