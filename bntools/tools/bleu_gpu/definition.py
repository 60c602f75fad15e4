"""Which BLEU: the choices of NLTK and of sacrebleu, checked, and the line that tells them apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bntools.core.errors import usage

Weights = Sequence[float] | Sequence[Sequence[float]]

NLTK = tuple(f"method{i}" for i in range(8))
SACREBLEU = {"exp": None, "floor": 0.1, "add-k": 1.0, "none": None}
"""Smoothing of sacrebleu and the default value of each."""
EPSILON = 0.1
"""NLTK's default for method1."""
BEYOND = 5
"""The order method5 and method7 look at above the highest, whatever the weights (NLTK)."""
LOOKS_BEYOND = ("method5", "method7")


class Definition(NamedTuple):
    """All that a score depends on besides the statistics. `vectors` (nltk): weights; `several`: of a list."""

    mode: str
    smoothing: str
    orders: int
    vectors: tuple[tuple[float, ...], ...]
    several: bool
    effective: bool
    auto_reweigh: bool
    value: float
    alpha: float
    k: float


def define(
    orders: int,
    mode: str = "nltk",
    smoothing: str | None = None,
    weights: Weights | None = None,
    effective_order: bool | None = None,
    auto_reweigh: bool = False,
    corpus: bool = False,
    value: float | None = None,
    alpha: float = 5,
    k: float = 5,
) -> Definition:
    """The options of `bleu_scores` with defaults filled in. Raises BnError (exit 2) where they do not fit."""
    smoothing = smoothing or _default(mode)
    known = NLTK if mode == "nltk" else tuple(SACREBLEU)
    if smoothing not in known:
        raise usage(f"{mode} has no smoothing {smoothing!r}", f"one of {', '.join(known)}")
    if mode == "sacrebleu":
        if weights is not None or auto_reweigh:
            raise usage("sacrebleu has no weights", "use mode nltk")
        effective = not corpus if effective_order is None else effective_order
        add = SACREBLEU[smoothing] if value is None else value
        return Definition(mode, smoothing, orders, (), False, effective, False, add or 0.0, alpha, k)
    if effective_order:
        raise usage("NLTK has no effective order", "use mode sacrebleu")
    vectors, several = _vectors(smoothing, weights, orders)
    epsilon = EPSILON if value is None else value
    return Definition(mode, smoothing, orders, vectors, several, False, auto_reweigh, epsilon, alpha, k)


def _vectors(
    smoothing: str, weights: Weights | None, orders: int
) -> tuple[tuple[tuple[float, ...], ...], bool]:
    """Weight vectors, and whether the caller gave a list of them."""
    beyond = smoothing in LOOKS_BEYOND
    if beyond and orders < BEYOND:
        raise usage(f"{smoothing} needs {BEYOND} orders, the statistics have {orders}", "max_n=5")
    rows, several = [(1 / (orders - beyond),) * (orders - beyond)], False
    if weights is not None:
        given = list(weights)
        if not given:
            raise usage("no weights", "give one weight for each order")
        several = not isinstance(given[0], int | float)
        rows = [tuple(map(float, row)) for row in (given if several else [given])]  # type: ignore[arg-type]
    need = max(map(len, rows))
    if not 0 < need <= orders or (smoothing == "method6" and need < 3):
        raise usage(f"{need} weights do not fit {orders} orders with {smoothing}", f"max_n={max(need, 3)}")
    return tuple(rows), several


def signature(
    mode: str = "nltk",
    smoothing: str | None = None,
    max_n: int = 4,
    refs: int | str = 1,
    effective_order: bool | None = None,
    corpus: bool = False,
    value: float | None = None,
) -> str:
    """What a score depends on, in one line to quote beside it, in the manner of sacrebleu's signatures."""
    name = smoothing or _default(mode)
    default = EPSILON if name == "method1" else SACREBLEU.get(name)
    if default is not None:
        name += f"[{default if value is None else value:.2f}]"
    effective = mode == "sacrebleu" and (not corpus if effective_order is None else effective_order)
    level = "corpus" if corpus else "sentence"
    eff = "yes" if effective else "no"
    return f"nrefs:{refs}|level:{level}|eff:{eff}|tok:ids|order:{max_n}|smooth:{name}|mode:{mode}"


def _default(mode: str) -> str:
    if mode not in ("nltk", "sacrebleu"):
        raise usage(f"unknown mode {mode!r}", "nltk or sacrebleu")
    return "method0" if mode == "nltk" else "exp"
