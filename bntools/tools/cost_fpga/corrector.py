"""What syntheses of other networks say beyond counting: a factor on each target, with an interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.core.artifact.reader import Artifact
from bntools.core.artifact.writer import Writer
from bntools.core.errors import GATE, BnError, bad_input
from bntools.tools.cost_fpga import boosting
from bntools.tools.cost_fpga.features import layer_features, network_features
from bntools.tools.cost_fpga.first_order import TARGETS, count_network
from bntools.tools.cost_fpga.network import Layer, parse_network
from bntools.tools.cost_fpga.samples import Sample

Floats = NDArray[np.float64]
QUANTILES = (0.05, 0.5, 0.95)
KIND = "fpga-corrector"
NAMES = ("boosting", "graph", "transformer")


@dataclass
class Corrector:
    """Trees by target and quantile, or the weights of a network; features are scaled by mean and deviation."""

    name: str
    mean: Floats
    deviation: Floats
    tensors: dict[str, NDArray[Any]]
    report: dict[str, Any] = field(default_factory=dict)

    def predict(self, nets: Sequence[list[Layer]]) -> Floats:
        """Targets of networks [nets, targets, quantiles], the quantiles in order."""
        first = np.log1p(first_orders(nets))
        logs = np.sort(first[:, :, None] + _factors(self, nets), -1)
        logs += self.tensors["widening"][None, :, None] * np.array([-1, 0, 1])
        return np.rint(np.expm1(logs)).clip(0)  # counts are whole


def first_orders(nets: Sequence[list[Layer]]) -> Floats:
    return np.array([[count_network(layers)[name] for name in TARGETS] for layers in nets])


def fit(samples: Sequence[Sample], model: str, seed: int, advance: Callable[[int], None]) -> Corrector:
    """The corrector `model`, or of all (`auto`) the one with the least error on held-out architectures.

    Architectures, not rows, are divided: 70 % to fit, 15 % to choose, 15 % for the figures of the report. Raises
    BnError (exit 4) when it is better than neither counting nor the median on any target.
    """
    fitted, chosen, tested = split([sample.group for sample in samples], seed)
    nets = [sample.layers for sample in samples]
    measured = np.array([[sample.measured[name] for name in TARGETS] for sample in samples])
    candidates = {}
    for name in NAMES if model == "auto" else (model,):
        corrector = _fit_one(name, [nets[i] for i in fitted], measured[fitted], seed)
        held = [nets[i] for i in chosen]
        corrector.tensors["widening"] = _widening(corrector.predict(held), measured[chosen])
        error = smape(corrector.predict(held)[:, :, 1], measured[chosen]).mean()
        candidates[name] = (float(error), corrector)
        advance(1)
    best = min(candidates, key=lambda name: candidates[name][0])
    corrector = candidates[best][1]
    test, median = [nets[i] for i in tested], np.median(measured[fitted], 0)
    corrector.report = {
        "kind": KIND, "model": best, "held_out_smape": {name: error for name, (error, _) in candidates.items()},
        "rows": len(samples), "architectures": len({sample.group for sample in samples}),
        "split": {"fit": len(fitted), "choose": len(chosen), "test": len(tested)},
        "targets": figures(corrector.predict(test), measured[tested], first_orders(test), median),
    }  # fmt: skip
    if not any(target["beats"] for target in corrector.report["targets"].values()):
        raise BnError("the corrector beats neither counting nor the median on any target",
                      "more architectures in the table", GATE)  # fmt: skip
    return corrector


def _widening(predicted: Floats, measured: Floats) -> Floats:
    """What the logarithms of the ends must give way so that 90 % of held-out rows lie inside (Romano et al. 2019)."""
    low, high = np.log1p(predicted[:, :, 0]), np.log1p(predicted[:, :, 2])
    outside = np.maximum(low - np.log1p(measured), np.log1p(measured) - high)
    level = min(1.0, 0.9 * (1 + 1 / len(measured)))
    return np.maximum(np.quantile(outside, level, axis=0), 0)


def split(groups: Sequence[str], seed: int) -> tuple[Any, Any, Any]:
    """Row numbers to fit, choose and test, no group in two of them. Raises BnError (exit 3) for too few groups."""
    names = sorted(set(groups))
    if len(names) < 7:
        raise bad_input(f"the table has {len(names)} architectures, too few to hold some out", "7 or more")
    order = np.random.default_rng(seed).permutation(len(names))
    held = max(1, round(0.15 * len(names)))
    part = {
        names[index]: 2 if place < held else 1 if place < 2 * held else 0 for place, index in enumerate(order)
    }
    parts = np.array([part[group] for group in groups])
    return np.flatnonzero(parts == 0), np.flatnonzero(parts == 1), np.flatnonzero(parts == 2)


def smape(predicted: Floats, measured: Floats) -> Floats:
    """Symmetric mean absolute percentage error of each target, as wa-hls4ml (arXiv 2511.05615) has it."""
    return 100 * (2 * np.abs(predicted - measured) / (np.abs(predicted) + np.abs(measured) + 1e-9)).mean(0)


def figures(predicted: Floats, measured: Floats, first: Floats, median: Floats) -> dict[str, dict[str, Any]]:
    """For each target the errors of corrector, first order and median, and how often the interval holds."""
    middle = predicted[:, :, 1]
    errors = (
        smape(middle, measured),
        smape(first, measured),
        smape(np.broadcast_to(median, measured.shape), measured),
    )
    relative = np.abs(middle - measured) / np.maximum(measured, 1)
    spread = np.square(measured - measured.mean(0)).sum(0)
    inside = (predicted[:, :, 0] <= measured + 0.5) & (measured - 0.5 <= predicted[:, :, 2])
    result = {}
    for index, name in enumerate(TARGETS):
        own, counting, constant = (float(error[index]) for error in errors)
        lost = np.square(measured[:, index] - middle[:, index]).sum()
        result[name] = {
            "smape": own, "first_order_smape": counting, "median_smape": constant,
            "beats": own < min(counting, constant),
            "r2": float(1 - lost / spread[index]) if spread[index] else None,
            "within": {f"{p}%": float((relative[:, index] <= p / 100).mean()) for p in (5, 10, 20)},
            "relative_error": {f"q{q}": float(np.quantile(relative[:, index], q / 100)) for q in (50, 75, 95)},
            "interval90_holds": float(inside[:, index].mean()),
        }  # fmt: skip
    return result


def _fit_one(name: str, nets: Sequence[list[Layer]], measured: Floats, seed: int) -> Corrector:
    residual = np.log1p(measured) - np.log1p(first_orders(nets))
    rows = np.stack([network_features(n) for n in nets]) if name == "boosting" else np.concatenate(
        [layer_features(n) for n in nets])  # fmt: skip
    mean, deviation = rows.mean(0), np.maximum(rows.std(0), 1e-6)
    if name == "boosting":
        x, tensors = (rows - mean) / deviation, {}
        for t in range(len(TARGETS)):
            for q, quantile in enumerate(QUANTILES):
                trees = boosting.fit_quantile(x, residual[:, t], quantile)
                tensors |= {f"{TARGETS[t]}.{q}.{key}": array for key, array in trees._asdict().items()}
        return Corrector(name, mean, deviation, {**tensors, "widening": np.zeros(len(TARGETS))})
    from bntools.tools.cost_fpga import neural

    scaled = [(layer_features(n) - mean) / deviation for n in nets]
    spread = np.maximum(residual.std(0), 1e-3)
    network = neural.train(name, scaled, residual / spread, QUANTILES, seed)
    weights = {key: value.numpy() for key, value in network.state_dict().items()}
    return Corrector(name, mean, deviation, {**weights, "spread": spread, "widening": np.zeros(len(TARGETS))})


def _factors(corrector: Corrector, nets: Sequence[list[Layer]]) -> Floats:
    """Logarithms of the factors on the first order [nets, targets, quantiles]."""
    if corrector.name == "boosting":
        x = (np.stack([network_features(n) for n in nets]) - corrector.mean) / corrector.deviation
        result = np.empty((len(nets), len(TARGETS), len(QUANTILES)))
        for t, target in enumerate(TARGETS):
            for q in range(len(QUANTILES)):
                parts = (corrector.tensors[f"{target}.{q}.{key}"] for key in boosting.Trees._fields)
                result[:, t, q] = boosting.predict(boosting.Trees(*parts), x)
        return result
    import torch

    from bntools.tools.cost_fpga import neural

    weights = {
        key: torch.from_numpy(value)
        for key, value in corrector.tensors.items()
        if key not in ("spread", "widening")
    }
    network = neural.NETWORKS[corrector.name](len(corrector.mean), len(TARGETS) * len(QUANTILES))
    network.load_state_dict(weights)
    scaled = [(layer_features(n) - corrector.mean) / corrector.deviation for n in nets]
    values = neural.evaluate(network.eval(), scaled, len(TARGETS))
    return values * corrector.tensors["spread"][None, :, None]


def write_corrector(
    corrector: Corrector, target: str, force: bool, entry: dict[str, Any]
) -> dict[str, Any] | None:
    """Write the artifact `fpga-corrector`; returns the manifest."""
    import torch

    with Writer(target, KIND, force=force) as writer:
        facts = {"model": corrector.name, "targets": list(TARGETS), "quantiles": list(QUANTILES)}
        writer.describe("corrector", facts)
        writer.describe("history", [entry])
        writer.describe("report", corrector.report)
        tensors = {"mean": corrector.mean, "deviation": corrector.deviation, **corrector.tensors}
        for name, array in tensors.items():
            writer.add(f"corrector.{name}", torch.from_numpy(np.ascontiguousarray(array)))
    return writer.manifest


def read_corrector(source: Artifact) -> Corrector:
    """A corrector of its artifact; BnError (exit 3) for another kind or a damaged one."""
    facts = source.json("bntools.corrector", dict)
    if source.kind != KIND or facts.get("model") not in NAMES or facts.get("targets") != list(TARGETS):
        raise bad_input(f"{source.label} is no corrector of FPGA estimates (kind {source.kind!r})",
                        "bntools cost-fpga --fit TABLE -o FILE makes one")  # fmt: skip
    odd = [name for name in source.names() if source.entries[name].dtype not in ("F64", "F32", "I64", "I32")]
    if odd:
        raise bad_input(f"{source.label}: {odd[0]} is {source.entries[odd[0]].dtype}", "make it again")
    arrays = {name.removeprefix("corrector."): source.tensor(name).numpy() for name in source.names()}
    try:
        mean, deviation = arrays.pop("mean"), arrays.pop("deviation")
    except KeyError as error:
        raise bad_input(f"{source.label} lacks tensor {error}") from None
    corrector = Corrector(facts["model"], mean, deviation, arrays, source.report)
    _check(corrector, source.label)
    return corrector


def _check(corrector: Corrector, label: str) -> None:
    """Raises BnError (exit 3) where tensors are missing or of another shape than the corrector's network takes."""
    example = parse_network({"layers": [{"type": "dense", "inputs": 2, "outputs": 2}]}, "example")
    held = {name: array.shape for name, array in corrector.tensors.items()}
    wide = corrector.mean.shape
    fits = len(wide) == 1 and corrector.deviation.shape == wide and held.get("widening") == (len(TARGETS),)
    if corrector.name == "boosting":
        stems = [f"{target}.{q}" for target in TARGETS for q in range(len(QUANTILES))]
        fits = fits and wide == network_features(example).shape
        fits = fits and all(_trees_fit(stem, corrector.tensors, wide[0]) for stem in stems)
    else:
        from bntools.tools.cost_fpga import neural

        fits = fits and held.get("spread") == (len(TARGETS),) and wide == layer_features(example).shape[1:]
        if fits:
            network = neural.NETWORKS[corrector.name](wide[0], len(TARGETS) * len(QUANTILES))
            wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
            fits = wanted == {
                name: shape for name, shape in held.items() if name not in ("spread", "widening")
            }
    named = {"mean": corrector.mean, "deviation": corrector.deviation, **corrector.tensors}
    finite = all(np.isfinite(a).all() for name, a in named.items() if not name.endswith(".threshold"))
    if not fits or not finite:  # a leaf that is not split has an infinite threshold
        raise bad_input(
            f"{label}: its tensors do not fit together", "bntools cost-fpga --fit TABLE makes one"
        )


def _trees_fit(stem: str, tensors: Mapping[str, Any], features: int) -> bool:
    parts = [tensors.get(f"{stem}.{key}") for key in boosting.Trees._fields]
    if any(part is None for part in parts):
        return False
    feature, threshold, value, start = parts
    nodes, count = 2**boosting.DEPTH - 1, len(feature) if feature.ndim else 0
    shapes = (feature.shape, threshold.shape, value.shape, start.shape)
    return (
        shapes == ((count, nodes), (count, nodes), (count, nodes + 1), (1,))
        and feature.dtype.kind == "i"
        and (not count or 0 <= int(feature.min()) <= int(feature.max()) < features)
    )
