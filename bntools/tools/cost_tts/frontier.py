"""Accuracy against cost of every model, limit and number of trials; the best for a budget; where size stops to pay."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.architecture.shapes import counts
from bntools.core.errors import bad_input
from bntools.tools.cost_tts.price import Price
from bntools.tools.cost_tts.runs import Group
from bntools.tools.cost_tts.threshold import size_threshold

Floats = NDArray[np.float64]
TERA = 1e12


@dataclass(frozen=True)
class Settings:
    """budgets: equivalent TFLOPs a query. trials: numbers of them, () for powers of two up to what there is.

    fit: numbers beyond what was run are extrapolated. bootstrap: resamples of the queries.
    """

    budgets: tuple[float, ...] = ()
    trials: tuple[int, ...] = ()
    fit: bool = False
    bootstrap: int = 1000
    seed: int = 0


class Choice(NamedTuple):
    """One thing to run, with its accuracy and its cost by query [queries]."""

    model: str
    parameters: int
    limit: int | None
    trials: int
    accuracy: Floats
    cost: Floats
    extrapolated: bool = False


def scaling_report(
    groups: Sequence[Group], prices: Mapping[str, Price], settings: Settings
) -> dict[str, Any]:
    """The report of bntools-cost-tts(1). Raises BnError (exit 3) for more trials than were run, without --fit."""
    choices = all_choices(groups, prices, settings)
    bare = {name: _without_memory(price) for name, price in prices.items()}
    compute = all_choices(groups, bare, settings)
    weights = resamples(len(choices[0].accuracy), settings)
    budgets = settings.budgets or _budgets(choices)
    return {
        "kind": "cost-tts",
        "queries": len(choices[0].accuracy),
        "intensity": max(price.intensity for price in prices.values()),
        "choices": [_describe(choice, weights) for choice in choices],
        "frontier": [_describe(choice, weights) for choice in pareto(choices)],
        "best": [best_for(budget, choices, weights) for budget in budgets],
        "threshold": size_threshold(choices, weights),
        "compute_only": {
            "frontier": [_describe(choice, weights) for choice in pareto(compute)],
            "best": [best_for(budget, compute, weights) for budget in budgets],
            "threshold": size_threshold(compute, weights),
        },
        "assumptions": _assumptions(prices, settings),
    }


def all_choices(groups: Sequence[Group], prices: Mapping[str, Price], settings: Settings) -> list[Choice]:
    """Every group with every number of trials."""
    choices = []
    for group in groups:
        if group.model not in prices:
            raise bad_input(f"the runs name model {group.model!r}, which --models does not",
                            f"--models {group.model}=DIRECTORY")  # fmt: skip
        price, fewest = prices[group.model], group.fewest
        wanted = settings.trials or tuple(
            1 << power for power in range(fewest.bit_length()) if 1 << power <= fewest
        )
        beyond = [n for n in wanted if n > fewest]
        if beyond and not settings.fit:
            raise bad_input(f"{beyond[0]} trials of {group.model} are asked for, a query has {fewest}",
                            "run more, or --fit to extrapolate")  # fmt: skip
        inside = [n for n in wanted if n <= fewest] or [fewest]
        size = counts.parameters(price.shape)
        run = [Choice(group.model, size, group.limit, n, *_measure(group, price, n)) for n in inside]
        choices += run + [_extrapolate(group, price, run, n) for n in beyond]
    return choices


def coverage(trials: int, right: int, drawn: int) -> float:
    """Chance that `drawn` of `trials` runs, `right` of them correct, hold a correct one."""
    return 1.0 - math.comb(trials - right, drawn) / math.comb(trials, drawn)


def expected_longest(lengths: Sequence[int], drawn: int) -> float:
    """Expected longest of `drawn` runs taken from these without replacement."""
    ordered, count = sorted(lengths), len(lengths)
    ways = math.comb(count, drawn)
    return sum(length * math.comb(rank, drawn - 1) for rank, length in enumerate(ordered)) / ways


def _measure(group: Group, price: Price, trials: int) -> tuple[Floats, Floats]:
    """Accuracy and expected cost of `trials` runs at once by query; the prompt is read once for all that go on."""
    queries = sorted(group.tokens)
    accuracy = [coverage(len(group.correct[q]), sum(group.correct[q]), trials) for q in queries]
    return np.array(accuracy), np.array([_cost(group, price, query, trials) for query in queries])


def _cost(group: Group, price: Price, query: str, trials: int) -> float:
    lengths, prompt = group.tokens[query], group.prompts[query]
    each = {length: price.trial(prompt, length) for length in set(lengths)}
    spent = [each[length] for length in lengths]
    alone = sum(item.flops + price.intensity * item.own_bytes for item in spent) / len(spent)
    rates = [item.prompt_bytes / length for item, length in zip(spent, lengths, strict=True)]
    drawn = min(trials, len(lengths))
    longest = expected_longest(lengths, drawn) if trials == drawn else max(lengths)
    return trials * alone + price.intensity * max(rates) * longest


def _extrapolate(group: Group, price: Price, run: Sequence[Choice], trials: int) -> Choice:
    """Accuracy beyond the trials that were run: its logit a line in log cost, fitted to the whole set."""
    cost = np.array([_cost(group, price, query, trials) for query in sorted(group.tokens)])
    means = np.clip([choice.accuracy.mean() for choice in run], 1e-3, 1 - 1e-3)
    logs = np.log([choice.cost.mean() for choice in run])
    if len(run) < 2:
        raise bad_input(f"{group.model} has one number of trials, no line to extrapolate", "run more trials")
    slope, offset = np.polyfit(logs, np.log(means / (1 - means)), 1)
    mean = 1 / (1 + math.exp(-(offset + slope * math.log(cost.mean()))))
    scaled = np.clip(run[-1].accuracy * mean / max(run[-1].accuracy.mean(), 1e-9), 0, 1)
    return Choice(group.model, run[0].parameters, group.limit, trials, scaled, cost, True)


def resamples(queries: int, settings: Settings) -> Floats:
    """Weights [1 + bootstrap, queries]: first the queries as they are, then draws with replacement."""
    rng = np.random.default_rng(settings.seed)
    drawn = rng.multinomial(queries, np.full(queries, 1 / queries), settings.bootstrap) / queries
    return np.vstack([np.full(queries, 1 / queries), drawn])


def interval(values: Floats) -> dict[str, float]:
    """The first value with the 2.5 and 97.5 % points of the others."""
    low, high = np.quantile(values[1:], [0.025, 0.975]) if len(values) > 1 else (values[0], values[0])
    return {"value": float(values[0]), "low": float(low), "high": float(high)}


def pareto(choices: Sequence[Choice]) -> list[Choice]:
    """What nothing cheaper is as good as, by cost."""
    kept: list[Choice] = []
    for choice in sorted(choices, key=lambda item: (item.cost.mean(), -item.accuracy.mean())):
        if not kept or choice.accuracy.mean() > kept[-1].accuracy.mean():
            kept.append(choice)
    return kept


def best_for(budget: float, choices: Sequence[Choice], weights: Floats) -> dict[str, Any]:
    """The most accurate choice within a budget, and in how many of the resamples it is that."""
    accuracy = np.stack([choice.accuracy for choice in choices]) @ weights.T
    cost = np.stack([choice.cost for choice in choices]) @ weights.T
    allowed = np.where(cost <= budget * TERA, accuracy, -1.0)
    if allowed[:, 0].max() < 0:
        return {"budget": budget, "choice": None, "share": None}
    first = int(allowed[:, 0].argmax())
    same = allowed[:, 1:].argmax(0) == first
    share = float(same.mean()) if same.size else None
    return {"budget": budget, "choice": _describe(choices[first], weights), "share": share}


def _describe(choice: Choice, weights: Floats) -> dict[str, Any]:
    return {
        "model": choice.model, "parameters": choice.parameters, "limit": choice.limit, "trials": choice.trials,
        "etflops": float(choice.cost.mean()) / TERA, "accuracy": interval(weights @ choice.accuracy),
        "extrapolated": choice.extrapolated,
    }  # fmt: skip


def _without_memory(price: Price) -> Price:
    return Price(price.shape, 0.0, price.kv_bytes, price.sparse, price.batch, price.weight_bytes)


def _budgets(choices: Sequence[Choice]) -> tuple[float, ...]:
    """Three budgets over the range of what was run."""
    costs = [choice.cost.mean() / TERA for choice in choices]
    return tuple(float(f"{value:.2g}") for value in np.geomspace(min(costs) * 1.5, max(costs), 3))


def _assumptions(prices: Mapping[str, Price], settings: Settings) -> list[str]:
    lines = ["a prompt's own prefill is not counted; its cache is read once for all trials that go on"]
    if any(price.batch is None for price in prices.values()):
        lines.append("reading the weights costs nothing, as in a very large batch (--batch prices it)")
    if any(price.sparse for price in prices.values()):
        lines.append("accuracies are those of the runs: with dense attention unless they were made sparse")
    return lines
