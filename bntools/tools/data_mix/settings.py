"""What the user decides: the question, the methods, and what pilots are."""

from __future__ import annotations

from dataclasses import dataclass, field

from bntools.core.errors import usage

METHODS = ("joint", "projektor", "exp", "regmix", "bimix")


@dataclass(frozen=True)
class Settings:
    """What decides a report beside the runs.

    at: the size asked for. caps and prices by source; budget: what may be spent at the target. slope: the exponent in
    N to assume where runs are of one size. methods: the first answers, the others are compared with it. following:
    how many next runs to propose, of an expected gain above `least_gain`.
    confidence: None for what the number of pilots asks for. Raises BnError (exit 2).
    """

    at: float | None = None
    methods: tuple[str, ...] = ("joint",)
    compare: bool = False
    caps: dict[str, float] = field(default_factory=dict)
    prices: dict[str, float] = field(default_factory=dict)
    budget: float | None = None
    slope: float | None = None
    following: int = 0
    least_gain: float = 0.0
    level: float = 0.9
    confidence: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.methods:
            if name not in METHODS:
                raise usage(
                    f"--method {name} is none of {', '.join(METHODS)}", "--method joint,projektor --compare"
                )
        if self.at is not None and not self.at > 0:
            raise usage(f"--at {self.at:g} is not above 0", "--at 1e6")


def assignments(option: str, texts: tuple[str, ...]) -> dict[str, float]:
    """`web=0.3` as numbers by name, several after commas or by repetition. Raises BnError (exit 2)."""
    numbers: dict[str, float] = {}
    for word in (word for text in texts for word in text.split(",") if word.strip()):
        name, equals, value = word.rpartition("=")
        try:
            numbers[name.strip()] = float(value)
        except ValueError:
            equals = ""
        if not equals or not name.strip():
            raise usage(f"{option} {word} is not SOURCE=NUMBER", f"{option} web=0.3")
    return numbers
