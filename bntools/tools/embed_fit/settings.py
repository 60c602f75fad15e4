"""What decides the result of embed-fit, checked."""

from __future__ import annotations

from dataclasses import dataclass, field

from bntools.core.errors import usage

METHODS = (
    "full",
    "spectral",
    "unified",
    "hash",
    "qr",
    "mde",
    "robe",
    "tt",
    "dhe",
    "prune",
    "pep",
    "dnis",
    "ihas",
)
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
