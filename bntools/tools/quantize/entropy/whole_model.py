"""The entropy code over a whole model: a sweep for the metrics, levels at a constant, streams."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bntools.core.errors import BnError, bad_input, usage
from bntools.core.importance import metric
from bntools.core.importance.fisher_sweep import Sweep
from bntools.core.importance.metric import Metric
from bntools.core.importance.sensitivity import embeddings
from bntools.core.model.model import Model
from bntools.core.packing import entropy
from bntools.core.progress import Step, no_step
from bntools.core.report.values import four_digits
from bntools.core.system.threads import in_order
from bntools.core.work.array_store import Shelf
from bntools.core.work.folder import Work
from bntools.core.work.spool import Spool
from bntools.tools.quantize.entropy import levels
from bntools.tools.quantize.plan import Result, Task, skipped

_SWEPT = "swept"
IN_FLIGHT = 1 << 30  # bytes of weights worked on at once
_ENTRY = 550  # bytes of a tensor in the header and in quantization.json, at most, besides its name
_METADATA = 40_000  # bytes of config, report and history, at most


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

    def keep(self, name: str, metric: Metric) -> None:
        """Put a metric away."""
        *arrays, damping = astuple(metric)
        self.shelf.put(f"metric {name}", [*arrays, np.array([damping])])
        self.names.append(name)

    def metric(self, name: str) -> Metric:
        """A metric as it was kept."""
        *arrays, damping = self.shelf.get(f"metric {name}")
        return Metric(*arrays, float(damping[0]))  # type: ignore[arg-type]


def prepare(
    task: Task, windows: Tensor, *, device: str = "cpu", step: Step = no_step, work: Work | None = None
) -> Prepared:
    """The metric of every tensor that will be coded, by one sweep over the calibration windows, or from `work`."""
    model, asked = task.model, task.entropy
    wanted = {item.name for item in task.chosen if item.linear and len(model.entries[item.name].shape) == 2}
    prepared = Prepared(Shelf(work), [], {}, asked.trellis)
    if work is not None and work.has(_SWEPT):
        unit, facts = work.load(_SWEPT)
        unit.close()
        prepared.names = facts["names"]
    else:
        sweep = Sweep(
            model, windows, seed=asked.seed, outputs=asked.two_sided, mixed=True, device=device, step=step
        )
        _sweep(model, wanted, prepared, windows, sweep)
        if work is not None:
            work.save(_SWEPT, {}, {"names": prepared.names})
    if asked.embedding and (absent := set(embeddings(model)) - set(prepared.names)):
        raise usage(f"{min(absent)} has another width than the blocks", "as it is: --no-embedding")
    if not asked.embedding:
        prepared.names = [name for name in prepared.names if name in wanted]
    prepared.skipped = dict.fromkeys(
        sorted(wanted - set(prepared.names)), "in no block that the text reaches"
    )
    if not prepared.names:
        raise bad_input("no linear weight lies in the model's blocks", "--code fixed needs no blocks")
    return prepared


def _sweep(model: Model, wanted: set[str], prepared: Prepared, windows: Tensor, sweep: Sweep) -> None:
    """Put away the metrics of the linears block by block, then those of the embeddings."""
    for _, block in sweep:
        chosen = sorted(
            (name for name in block if name in wanted), key=lambda name: -model.entries[name].numel
        )
        metrics = in_order(metric.of_linear, [block[name] for name in chosen], lambda sensitivity: 0, 1)
        for name, one in zip(chosen, metrics, strict=True):
            prepared.keep(name, one)
    counts = torch.bincount(windows.flatten(), minlength=len(sweep.head.variance))
    for name, used in embeddings(model).items():  # cheap, and another size may want it
        shape = model.entries[name].shape
        with contextlib.suppress(
            BnError
        ):  # of another width than the blocks: refused where it is to be coded
            prepared.keep(name, metric.of_embedding(sweep.head, sweep.first, counts, used=used, shape=shape))
    order = {name: index for index, name in enumerate(model.entries)}
    prepared.names.sort(key=order.__getitem__)


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


def code(model: Model, prepared: Prepared, names: list[str], alpha: float, step: Step) -> Pass:
    """Quantize tensors at the constant `alpha`, one a thread."""
    result = Pass(alpha, entropy.Counter(prepared.trellis), Spool(), {})
    add(model, prepared, result, dict.fromkeys(names), alpha, step)
    return result


def add(
    model: Model, prepared: Prepared, result: Pass, targets: Mapping[str, Tensor | None], alpha: float,
    step: Step,
) -> dict[str, Tensor]:  # fmt: skip
    """Quantize tensors into a pass, one a thread; returns their dense values [out, in] float32 where a target is given.

    targets: [out, in] float32 in place of the weights themselves, or None.
    """

    def work(name: str) -> tuple[str, levels.Quantized, float]:
        w, target = matrix(model, name), targets[name]
        done = levels.quantize(
            w if target is None else target, prepared.metric(name), alpha, prepared.trellis
        )
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


def streams(model: Model, prepared: Prepared, trial: Pass) -> tuple[dict[str, bytes], bytes]:
    """The bytes of every coded tensor by name, and of their tables."""
    tables = trial.counter.tables(levels.shrinks(prepared.trellis))

    def work(name: str) -> tuple[str, bytes]:
        coded = entropy.EntropyCoded(*trial.spool.get(name))  # type: ignore[arg-type]
        return name, entropy.encode(coded, spec_of(model, name, trial.octave), tables)

    done = in_order(work, prepared.names, lambda name: 4 * model.entries[name].numel, IN_FLIGHT)
    return dict(done), entropy.dump_tables(tables)


@dataclass(frozen=True)
class Coded:
    """Levels that fit a size: their pass, the streams by name, and the tables of the streams."""

    trial: Pass
    streams: dict[str, bytes]
    tables: bytes

    @property
    def nbytes(self) -> int:
        return len(self.tables) + sum(map(len, self.streams.values()))


def coded(model: Model, prepared: Prepared, trial: Pass) -> Coded:
    """A pass with its streams and tables."""
    return Coded(trial, *streams(model, prepared, trial))


def results(task: Task, prepared: Prepared, coded: Coded, gains: Mapping[str, Tensor]) -> Iterator[Result]:
    """What goes into the artifact, in checkpoint order. gains: norms that were trained."""
    model, trial = task.model, coded.trial
    for item in task.items:
        if item.name not in coded.streams:
            reason = item.reason or prepared.skipped.get(item.name, "")
            dense = model.tensor(item.name)
            dense = gains[item.name].to(dense.dtype) if item.name in gains else dense
            yield Result(item.name, {item.name: dense}, reason=reason)
            continue
        data = torch.frombuffer(bytearray(coded.streams[item.name]), dtype=torch.uint8)
        spec = spec_of(model, item.name, trial.octave)
        bits = round(8 * data.numel() / model.entries[item.name].numel, 4)
        yield Result(item.name, {spec.part_names(item.name)[0]: data}, spec,
                     {"bits_per_weight": bits, **trial.measured[item.name]})  # fmt: skip


def goal(task: Task, prepared: Prepared, files: int) -> Goal:
    """Bytes left for the streams. files: bytes of the side files. Raises BnError (exit 2) when nothing is left.

    A budget in bytes covers the whole artifact: what is kept, side files and header (bounded from above) come off.
    """
    entries, asked = task.model.entries, task.entropy
    weights = sum(entries[name].numel for name in prepared.names)
    if asked.unit == "bits":
        return Goal(int(asked.budget * weights / 8), weights)
    coded = set(prepared.names)
    dense = sum(entries[item.name].nbytes for item in task.items if item.name not in coded)
    header = sum(len(item.name) + _ENTRY for item in task.items) + _METADATA
    left = int(asked.budget) - dense - files - header
    if 8 * left < weights / 4:
        raise usage(
            f"--budget {asked.budget / 1e6:.1f}MB leaves {left / 1e6:.1f} MB for {weights:,} weights",
            f"what is not coded takes {(dense + files + header) / 1e6:.1f} MB: --embedding codes more, or raise it",
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

    return {
        "kind": "quantize",
        "code": "entropy",
        "tensors": len(coded),
        "weights": sum(model.entries[result.name].numel for result in coded),
        "dims": {"entropy": len(coded)},
        "bits_per_weight": {"linear": bits(linear), "model": bits(results)},
        "predicted_kl": four_digits(sum(result.measured["predicted_kl"] for result in coded)),
        "step": four_digits(trial.alpha),
        "skipped": skipped(results),
    }
