"""What decides the result of embed-fit, checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from bntools.core.errors import usage

METHODS = ("full", "spectral", "unified", "hash", "qr", "mde", "robe", "prune", "pep", "dnis", "ihas")
TASKS = ("auto", "binary", "regression")


@dataclass(frozen=True)
class Settings:
    """dim: width of the full table; bits: of spectral codes; splits: how many; chunk: width of a unified lookup.

    lambdas: weights of the prior to try; lambda_: one weight, not tuned; blocks: DNIS's shares of values.
    """

    methods: tuple[str, ...] = ("spectral",)
    budgets: tuple[float, ...] = (1 / 8,)
    model: str = "dcn"
    dim: int = 16
    bits: int = 32
    split: str = "random"
    splits: int = 1
    task: str = "auto"
    at_least: float | None = None
    lambda_: float | None = None
    baseline: bool = True
    rate: float = 2e-3
    batch: int = 2048
    patience: int = 2
    epochs: int = 40
    chunk: int = 4
    groups: int = 3
    share_table: bool = False
    blocks: tuple[float, ...] = (0.1, 0.2, 0.2, 0.2, 0.3)
    alpha_rate: float = 0.001
    seed: int = 0
    fields: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown:
            raise usage(f"no method is named {unknown[0]}", f"one of {', '.join(METHODS)}")
        if any(not 0 < budget <= 1 for budget in self.budgets):
            raise usage("a budget is a share of the full table, over 0 and at most 1", "--budget 1/8")
        if self.dim % self.chunk:
            raise usage(f"--chunk {self.chunk} does not divide --dim {self.dim}", "--chunk 4 --dim 16")
        if self.model != "dcn" and self.dim < 2:
            raise usage(f"--model {self.model} keeps a bias beside the factors", "--dim 2 or more")


def parse_budgets(text: str) -> tuple[float, ...]:
    """`1/8`, `0.1`, `1/2,1/4`, or `1/2..1/32`, halved from the first to the last. Raises BnError (exit 2)."""
    try:
        if ".." in text:
            first, last = (Fraction(part) for part in text.split(".."))
            if not 0 < last <= first <= 1:
                raise ValueError
            result = [first]
            while result[-1] / 2 >= last:
                result.append(result[-1] / 2)
            return tuple(float(x) for x in result)
        result = [Fraction(part.strip()) for part in text.split(",")]
    except (ValueError, ZeroDivisionError):
        raise usage(f"--budget {text!r} is no share and no range of shares", "--budget 1/8, or 1/2..1/32") from None
    if any(not 0 < x <= 1 for x in result):
        raise usage(f"--budget {text}: a share of the full table is over 0 and at most 1", "--budget 1/8")
    return tuple(dict.fromkeys(float(x) for x in result))


def budget_name(budget: float) -> str:
    """1/8 where that is what it is."""
    near = Fraction(budget).limit_denominator(4096)
    return f"{near.numerator}/{near.denominator}" if abs(near - Fraction(budget)) < 1e-12 else f"{budget:.4g}"
