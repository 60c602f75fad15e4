"""From settings to a written artifact: calibrate, quantize with the method asked for, describe what was done."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import torch

from bntools import options, terminal
from bntools.core.artifact.writer import Writer, compressed, is_directory
from bntools.core.errors import usage
from bntools.core.importance.sensitivity import sweep_tokens
from bntools.core.model import history
from bntools.core.model.identity import source_identity
from bntools.core.model.model import Model
from bntools.core.packing import grouped
from bntools.core.packing.entropy import TABLES
from bntools.core.progress import no_step
from bntools.core.training import distill
from bntools.core.work.folder import Work, digest_of_json, identity
from bntools.options import Session
from bntools.tools.quantize import allocate, calibrated, distilled, factored, fisher, kept, pipeline
from bntools.tools.quantize import entropy as method
from bntools.tools.quantize.asymmetric import asymmetric
from bntools.tools.quantize.budget import available, enough, left_dense
from bntools.tools.quantize.compensated import compensated
from bntools.tools.quantize.entropy import Asked
from bntools.tools.quantize.fisher import Moments
from bntools.tools.quantize.pipeline import Item, Result, choose, summarize
from bntools.tools.quantize.settings import Settings
from bntools.tools.quantize.size import solve
from bntools.tools.quantize.windows import Calibration, calibration, windows_of


def fixed(
    session: Session, model: Model, items: list[Item], settings: Settings, given: dict[str, Any], out: Writer
) -> dict[str, Any]:
    """Codes of a fixed number of bits, or one part of them; returns the report."""
    shard, calib = given["shard"], given["calib"]
    source, device = None if shard else history.fingerprint(model), session.torch_device()
    found = calibration(model, items, settings, calib, given["distill"] > 0)
    if (shard or given["gather"]) and found:
        raise usage("only quantization without calibration is cut into parts", "--calib none --method rtn")
    if settings.budget and not given["gather"] and not given["shard"]:
        items, settings, told = enough(model, items, settings, _room(model, items, settings, given, out))
        terminal.note(session, told)
    swept, work = _folders(session, model, items, settings, found, given)
    windows = _windows(session, model, found, swept or work)
    moments = _swept(session, model, items, settings, windows, swept)
    if settings.budget and not given["gather"]:
        items = _allocated(session, model, items, settings, moments, given, out)
    if shard:
        items = kept.share(model, items, shard)
    adaptive = sum(1 for item in items if item.grid and item.grid.dim == "ada")
    if settings.choose == "final" or given["gather"]:
        adaptive = 0
    with terminal.progress(session, "choosing dimensions", adaptive) as advance:
        choices = kept.choices(
            work, lambda: choose(model, items, settings, windows, device, advance) if adaptive else {}
        )
    fitted = distill.training(windows, given["distill"], session.seed) if given["distill"] else windows
    stream = _stream(session, model, items, settings, fitted, choices, work, given["gather"], moments)
    results, trained = [], {}
    if given["distill"]:
        held = list(_advanced(session, model, items, stream))
        show = functools.partial(terminal.progress, session)
        stream, trained = factored.factored(
            model, held, windows, given["distill"], session.seed, device, show
        )  # fmt: skip
    for result in stream if given["distill"] else _advanced(session, model, items, stream):
        for name, tensor in result.tensors.items():
            out.add(name, tensor)
        result.tensors.clear()
        results.append(result)
        terminal.detail(session, _line(result))
    report = {**summarize(results, model), "settings": settings.as_json(), "calib": calib,
              "calibration": found.report(), **({"distill": trained} if given["distill"] else {})}  # fmt: skip

    if shard:
        out.files = {grouped.FILE: _json(kept.table(results)).encode()}
        out.describe("part", kept.part_of(model, settings, shard))
        return report
    grid = settings.grid
    kind = {"bits": grid.bits, "group_size": grid.group, "dim": grid.dim}
    _describe(session, model, results, report, kind, source, out)
    return report


def _room(model: Model, items: list[Item], settings: Settings, given: dict[str, Any], out: Writer) -> int:
    """Bytes that the weights may take of the budget."""
    small = not is_directory(out.target)
    files = sum(
        len(compressed(name, data)[1] if small and settings.unit == "bytes" else data)
        for name, data in model.files.items()
    )
    spare = factored.reserve(model, [item.name for item in items if item.grid]) if given["distill"] else 0
    return available(model, items, settings, files, spare)


def _advanced(session: Session, model: Model, items: list[Item], stream: Any) -> Iterator[Result]:
    """The results of a stream, with a progress bar."""
    total = sum(model.entries[item.name].nbytes for item in items)
    with terminal.progress(session, "quantizing", total) as advance:
        for result in stream:
            yield result
            advance(model.entries[result.name].nbytes)


def _folders(
    session: Session,
    model: Model,
    items: list[Item],
    settings: Settings,
    found: Calibration,
    given: dict[str, Any],
) -> tuple[Work | None, Work | None]:
    """The folders of the sweep and of the coding. A sweep serves every size: what is coded from it lies inside its
    folder, in one of its own for each set of settings."""
    if not given["work"]:
        return None, None
    coding = _identity(session, model, settings, found, given["shard"])
    if not (found and _sweeps(settings)):
        return None, Work(given["work"], coding)
    names = [item.name for item in items if item.grid]
    swept = Work(
        given["work"], _swept_identity(session, model, found, "quantize, a sweep", {"tensors": names})
    )
    return swept, Work(f"{given['work']}/coded-{digest_of_json(coding)[:12]}", coding)


def _windows(session: Session, model: Model, found: Calibration, work: Work | None) -> Any:
    """The calibration windows, made here where the model is to make them."""
    total = found.shape[0] * found.shape[1]
    with terminal.progress(session, "making tokens", total) as advance:
        return windows_of(found, model, session.seed, session.torch_device(), work, advance)


def _sweeps(settings: Settings) -> bool:
    return bool(settings.fisher or settings.budget)


def _swept(
    session: Session, model: Model, items: list[Item], settings: Settings, windows: Any, work: Work | None
) -> Moments | None:
    """What a sweep tells of the linears, where the method or the budget asks for it and there is a text."""
    if windows is None or not _sweeps(settings):
        return None
    with terminal.progress(session, "calibrating", sweep_tokens(model, windows)) as advance:
        return fisher.swept(model, items, windows, session.seed, session.torch_device(), advance, work)


def _allocated(
    session: Session, model: Model, items: list[Item], settings: Settings, moments: Moments | None,
    given: dict[str, Any], out: Writer,
) -> list[Item]:  # fmt: skip
    """The items with bits and groups that fit the budget."""
    out.compress = settings.unit == "bytes"
    chosen = [item.name for item in items if item.grid]
    nbytes = _room(model, items, settings, given, out)
    with terminal.progress(session, "allocating bits", len(chosen)) as advance:
        return allocate.choose(model, items, settings, moments, nbytes, given["group_size"] is None, advance)


def entropy(
    session: Session, model: Model, items: list[Item], settings: Settings, asked: Asked, given: dict[str, Any],
    out: Writer,
) -> dict[str, Any]:  # fmt: skip
    """Levels of any size behind an entropy coder, at the size asked; returns the report."""
    source = history.fingerprint(model)
    told = entropy_calibration(model, items, settings, given["calib"])
    show = functools.partial(terminal.progress, session)
    work = (
        Work(given["work"], _entropy_identity(session, model, items, asked, told)) if given["work"] else None
    )
    windows = _windows(session, model, told, work)
    assert windows is not None
    with show("calibrating", sweep_tokens(model, windows)) as advance:
        prepared = method.prepare(model, items, windows, asked, session.torch_device(), advance, work)
    left = left_dense(model, items, prepared.names)
    terminal.note(session, left)
    out.compress = True
    files = sum(len(compressed(name, data)[1]) for name, data in model.files.items())
    goal = method.goal(model, prepared, items, asked, files)
    spare = distilled.reserve(model, prepared.names) if asked.distill else 0
    coding = replace(goal, nbytes=goal.nbytes - spare)
    if asked.compensate:
        fitted = distill.training(windows, asked.distill, asked.seed) if asked.distill else windows
        coded = compensated(model, prepared, coding, fitted, session.torch_device(), show)
    else:
        coded = solve(model, prepared, coding, show)
    done = distilled.Distilled(*coded, {}, {})
    if asked.distill:
        done = distilled.distilled(
            model, prepared, goal, coded, windows, asked.distill, asked.seed, session.torch_device(), show
        )
    tables = done.tables
    out.add(TABLES, torch.frombuffer(bytearray(tables), dtype=torch.uint8))
    results = []
    for result in method.results(model, items, prepared, done.trial, done.streams, done.gains):
        for name, tensor in result.tensors.items():
            out.add(name, tensor)
        results.append(result)
        terminal.detail(session, _line(result))
    report = {
        **method.summarize(model, results, len(tables), done.trial), "settings": asdict(asked), "calib": given["calib"],
        "calib_tokens": windows.numel(), "calibration": told.report(),
        **({"distill": done.report} if asked.distill else {}),
    }  # fmt: skip
    _describe(session, model, results, report, {"code": "entropy"}, source, out)
    return report


def _describe(
    session: Session, model: Model, results: list[Result], report: dict[str, Any], kind: dict[str, Any],
    source: Any, out: Writer,
) -> None:  # fmt: skip
    """Side files, config and history of a quantized model."""
    out.files = {**model.files, grouped.FILE: _json(kept.table(results)).encode()}
    # Not model.safetensors: transformers would take that, find no dense weights and fill in random ones.
    out.weights_file = "packed.safetensors"
    out.config = {**model.config, "quantization_config": {
        "quant_method": "bntools", "version": grouped.VERSION, **kind,
    }}  # fmt: skip
    out.describe("report", report)
    out.describe("history", [*model.history, history.entry(
        "quantize", options.argv(), session.seed, [source.result()], session.started,
    )])  # fmt: skip


def _entropy_identity(
    session: Session, model: Model, items: list[Item], asked: Asked, found: Calibration
) -> dict[str, Any]:
    names = [item.name for item in items if item.grid]
    settings = {"two_sided": asked.two_sided, "tensors": names}
    return _swept_identity(session, model, found, "quantize --code entropy", settings)


def _swept_identity(
    session: Session, model: Model, found: Calibration, tool: str, settings: dict[str, Any]
) -> dict[str, Any]:
    """What a sweep in a --work folder depends on; the size asked is not in it, so other sizes start from it."""
    return identity(
        tool, source_identity(model), settings=settings, seed=session.seed, calibration=found.identity(),
        device=session.torch_device(),
    )  # fmt: skip


def _identity(session: Session, model: Any, settings: Any, found: Calibration, shard: Any) -> dict[str, Any]:
    """What a --work folder must have been begun with."""
    return identity(
        "quantize", source_identity(model), settings=settings.as_json(), seed=session.seed,
        calibration=found.identity(), device=session.torch_device(), shard=str(shard) if shard else None,
    )  # fmt: skip


def _stream(
    session: Session, model: Any, items: list[Any], settings: Any, windows: Any, choices: Any, work: Any, parts: Any,
    swept: Moments | None,
) -> Any:  # fmt: skip
    """Results of the method asked for, as they come."""
    device = session.torch_device()
    if parts:
        return kept.gathered(model, items, parts, settings)
    if settings.compensate:
        return asymmetric(model, items, choices, settings, swept, windows, device, no_step)
    if settings.method == "gptq" and swept is not None:
        return fisher.coded(model, items, choices, settings, swept, work)
    if settings.method == "gptq":
        return calibrated.calibrated(model, items, choices, settings, windows, device, no_step, work)
    moments = swept.squares() if swept is not None and settings.search == "weighted" else None
    if moments is None and settings.search == "weighted" and windows is not None:
        with terminal.progress(session, "calibrating", windows.numel()) as advance:
            moments = kept.moments(
                work, lambda: pipeline.input_moments(model, items, windows, device, advance)
            )
    return kept.resumed(work, items, lambda left: pipeline.quantize(model, left, choices, settings, moments))


def entropy_calibration(model: Model, items: list[Item], settings: Settings, calib: str) -> Calibration:
    """What the entropy code is calibrated on: as many tokens as GPTQ."""
    return calibration(model, items, replace(settings, method="gptq"), calib)


def _line(result: Result) -> str:
    if result.spec is None:
        return f"{result.name}: kept, {result.reason}"
    errors = result.measured.get("errors")
    both = f", oc {errors['oc']:.3g} ic {errors['ic']:.3g}" if errors else ""
    return (
        f"{result.name}: {grouped.kind_of(result.spec)} {result.measured['bits_per_weight']:.3f} bits{both}"
    )


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
