"""The entropy code over a whole model: a sweep for the metrics, levels at a constant, streams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bntools.core.errors import bad_input, usage
from bntools.core.importance import metric
from bntools.core.importance.fisher_sweep import Sweep
from bntools.core.importance.metric import Metric
from bntools.core.importance.sensitivity import embeddings
from bntools.core.model.model import Model
from bntools.core.packing import entropy
from bntools.core.progress import Step
from bntools.core.report.values import four_digits
from bntools.core.system.threads import in_order
from bntools.core.work.array_store import Shelf
from bntools.core.work.folder import Work
from bntools.core.work.spool import Spool
from bntools.tools.quantize import levels
from bntools.tools.quantize.pipeline import Item, Result

_SWEPT = "swept"
IN_FLIGHT = 1 << 30  # bytes of weights worked on at once
_ENTRY = 550  # bytes of a tensor in the header and in quantization.json, at most, besides its name
_METADATA = 40_000  # bytes of config, report and history, at most


@dataclass(frozen=True)
class Asked:
    """What the user asks of the entropy code; recorded in the report.

    budget: bits per linear weight, or bytes of the whole file. two_sided: feedback over outputs, too.
    """

    budget: float
    unit: str  # "bits" or "bytes"
    trellis: bool = True
    two_sided: bool = True
    embedding: bool = False
    seed: int = 0
    distill: int = 0  # steps
    compensate: bool = True


@dataclass(frozen=True)
class Goal:
    """The size asked: bytes that the streams and tables of the coded tensors may take, and what they hold."""

    nbytes: int
    weights: int

    @property
    def bits(self) -> float:
        return 8 * self.nbytes / self.weights


@dataclass
class Prepared:
    """Metrics of the tensors to code, waiting on disk, and the trellis switch they were made for."""

    shelf: Shelf
    names: list[str]
    skipped: dict[str, str]
    trellis: bool

    def keep(self, name: str, one: Metric) -> None:
        """Put a metric away."""
        *arrays, damping = astuple(one)
        self.shelf.put(f"metric {name}", [*arrays, np.array([damping])])
        self.names.append(name)

    def metric(self, name: str) -> Metric:
        """A metric as it was kept."""
        *arrays, damping = self.shelf.get(f"metric {name}")
        return Metric(*arrays, float(damping[0]))  # type: ignore[arg-type]


def prepare(
    model: Model, items: list[Item], windows: Tensor, asked: Asked, device: str, step: Step,
    work: Work | None = None,
) -> Prepared:  # fmt: skip
    """The metric of every tensor that will be coded, by one sweep over the calibration windows, or from `work`."""
    wanted = {
        item.name for item in items if item.linear and item.grid and len(model.entries[item.name].shape) == 2
    }
    found = Prepared(Shelf(work), [], {}, asked.trellis)
    if work is not None and work.has(_SWEPT):
        unit, facts = work.load(_SWEPT)
        unit.close()
        found.names = facts["names"]
    else:
        _sweep(model, wanted, found, windows, asked, device, step)
        if work is not None:
            work.save(_SWEPT, {}, {"names": found.names})
    if not asked.embedding:
        found.names = [name for name in found.names if name in wanted]
    found.skipped = dict.fromkeys(sorted(wanted - set(found.names)), "in no block that the text reaches")
    if not found.names:
        raise bad_input("no linear weight lies in the model's blocks", "--code fixed needs no blocks")
    return found


def _sweep(
    model: Model, wanted: set[str], found: Prepared, windows: Tensor, asked: Asked, device: str,
    step: Step,
) -> None:  # fmt: skip
    sweep = Sweep(
        model, windows, seed=asked.seed, outputs=asked.two_sided, mixed=True, device=device, step=step
    )
    for _, block in sweep:
        chosen = sorted(
            (name for name in block if name in wanted), key=lambda name: -model.entries[name].numel
        )
        factored = in_order(metric.of_linear, [block[name] for name in chosen], lambda found: 0, 1)
        for name, one in zip(chosen, factored, strict=True):
            found.keep(name, one)
    counts = torch.bincount(windows.flatten(), minlength=len(sweep.head.variance))
    for name, (is_head, is_input) in embeddings(model).items():  # cheap, and another size may want it
        found.keep(name, metric.of_embedding(sweep.head, sweep.first, counts, is_head, is_input))
    order = {name: index for index, name in enumerate(model.entries)}
    found.names.sort(key=order.__getitem__)


@dataclass
class Pass:
    """Levels of some tensors at one constant: counted, and waiting on disk."""

    alpha: float
    counter: entropy.Counter
    spool: Spool
    measured: dict[str, dict[str, Any]]
    weights: int = 0
    octave: int = levels.OCTAVE  # of the linears' exponents

    @property
    def bits(self) -> float:
        return self.counter.bits() / self.weights


def code(model: Model, found: Prepared, names: list[str], alpha: float, step: Step) -> Pass:
    """Quantize tensors at the constant `alpha`, one a thread."""
    result = Pass(alpha, entropy.Counter(found.trellis), Spool(), {})
    add(model, found, result, dict.fromkeys(names), alpha, step)
    return result


def add(
    model: Model, found: Prepared, result: Pass, targets: Mapping[str, Tensor | None], alpha: float,
    step: Step,
) -> dict[str, Tensor]:  # fmt: skip
    """Quantize tensors into a pass, one a thread; returns their dense values [out, in] float32 where a target is given.

    targets: [out, in] float32 in place of the weights themselves, or None.
    """

    def work(name: str) -> tuple[str, levels.Quantized, float]:
        w, target = matrix(model, name), targets[name]
        done = levels.quantize(w if target is None else target, found.metric(name), alpha, found.trellis)
        lost = float((done.values - w).square().sum(dtype=torch.float64))
        return name, done, lost / max(float(w.square().sum(dtype=torch.float64)), 1e-300)

    values = {}
    for name, done, lost in in_order(
        work, list(targets), lambda name: 8 * model.entries[name].numel, IN_FLIGHT
    ):
        result.counter.add(done.coded)
        result.spool.put(name, [getattr(done.coded, part) for part in ("levels", *entropy.SIDES)])
        result.measured[name] = {
            "weight_error": four_digits(lost**0.5),
            "predicted_kl": four_digits(done.loss),
        }
        result.weights += model.entries[name].numel
        if targets[name] is not None:
            values[name] = done.values
        step(model.entries[name].numel)
    return values


def matrix(model: Model, name: str) -> Tensor:
    """A weight [out, in] float32."""
    linear, w = model.linears.get(name), model.tensor(name, torch.float32)
    return w.T.contiguous() if linear is not None and linear.transposed else w


def spec_of(model: Model, name: str, octave: int) -> entropy.EntropySpec:
    """octave: of the exponents of the linears; those of an embedding are never trained."""
    entry, linear = model.entries[name], model.linears.get(name)
    if linear is None:
        return entropy.spec(entry.shape, entry.dtype, False, levels.OCTAVE)
    return entropy.spec(entry.shape, entry.dtype, linear.transposed, octave)


def streams(model: Model, found: Prepared, trial: Pass) -> tuple[dict[str, bytes], bytes]:
    """The bytes of every coded tensor by name, and of their tables."""
    tables = trial.counter.tables(levels.shrinks(found.trellis))

    def work(name: str) -> tuple[str, bytes]:
        coded = entropy.EntropyCoded(*trial.spool.get(name))  # type: ignore[arg-type]
        return name, entropy.encode(coded, spec_of(model, name, trial.octave), tables)

    done = in_order(work, found.names, lambda name: 4 * model.entries[name].numel, IN_FLIGHT)
    return dict(done), entropy.dump_tables(tables)


def results(
    model: Model, items: list[Item], found: Prepared, trial: Pass, streams: dict[str, bytes],
    gains: Mapping[str, Tensor],
) -> Iterator[Result]:  # fmt: skip
    """What goes into the artifact, in checkpoint order. gains: norms that were trained."""
    for item in items:
        if item.name not in streams:
            reason = item.reason or found.skipped.get(item.name, "")
            kept = model.tensor(item.name)
            kept = gains[item.name].to(kept.dtype) if item.name in gains else kept
            yield Result(item.name, {item.name: kept}, reason=reason)
            continue
        data = torch.frombuffer(bytearray(streams[item.name]), dtype=torch.uint8)
        spec = spec_of(model, item.name, trial.octave)
        bits = round(8 * data.numel() / model.entries[item.name].numel, 4)
        yield Result(item.name, {spec.part_names(item.name)[0]: data}, spec,
                     {"bits_per_weight": bits, **trial.measured[item.name]})  # fmt: skip


def goal(model: Model, found: Prepared, items: list[Item], asked: Asked, files: int) -> Goal:
    """Bytes left for the streams. files: bytes of the side files. Raises BnError (exit 2) when nothing is left.

    A budget in bytes covers the whole artifact: what is kept, side files and header (bounded from above) come off.
    """
    weights = sum(model.entries[name].numel for name in found.names)
    if asked.unit == "bits":
        return Goal(int(asked.budget * weights / 8), weights)
    coded = set(found.names)
    kept = sum(model.entries[item.name].nbytes for item in items if item.name not in coded)
    header = sum(len(item.name) + _ENTRY for item in items) + _METADATA
    left = int(asked.budget) - kept - files - header
    if 8 * left < weights / 4:
        raise usage(
            f"--budget {asked.budget / 1e6:.1f}MB leaves {left / 1e6:.1f} MB for {weights:,} weights",
            f"what is not coded takes {(kept + files + header) / 1e6:.1f} MB: --embedding codes more, or raise it",
        )
    return Goal(left, weights)


def summarize(model: Model, results: list[Result], tables: int, trial: Pass) -> dict[str, Any]:
    """The report: bits per weight with streams, sides and tables counted, and the divergence predicted."""
    coded = [result for result in results if result.spec is not None]
    linear = [result for result in coded if result.name in model.linears]
    stored = {result.name: sum(tensor.nbytes for tensor in result.tensors.values()) for result in results}

    def bits(chosen: list[Result]) -> float:
        weights = sum(model.entries[result.name].numel for result in chosen)
        return round(8 * (tables + sum(stored[result.name] for result in chosen)) / max(weights, 1), 4)

    skipped = {
        result.name: result.reason
        for result in results
        if result.spec is None and not result.reason.startswith("vector")
    }
    return {
        "kind": "quantize",
        "code": "entropy",
        "tensors": len(coded),
        "weights": sum(model.entries[result.name].numel for result in coded),
        "dims": {"entropy": len(coded)},
        "bits_per_weight": {"linear": bits(linear), "model": bits(results)},
        "predicted_kl": four_digits(sum(result.measured["predicted_kl"] for result in coded)),
        "step": four_digits(trial.alpha),
        "skipped": skipped,
    }
