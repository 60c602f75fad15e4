"""From settings to a written stack, and from a stack to a shorter one."""

from __future__ import annotations

import contextlib
import functools
import json
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from bntools import options, terminal
from bntools.core import entropy, history, packed, stack
from bntools.core.artifact import Artifact
from bntools.core.calibration import text_windows
from bntools.core.errors import bad_input
from bntools.core.header import BITS, BLOCK_PREFIX
from bntools.core.model import Model
from bntools.core.shelf import Shelf
from bntools.core.work import Work, digest_of, identity, source_identity
from bntools.core.writer import Writer
from bntools.options import Session
from bntools.tools.stack_compress import build, curve, order
from bntools.tools.stack_compress.build import Settings, Stacks
from bntools.tools.stack_compress.encode import Recipe
from bntools.tools.stack_compress.order import Block

VERSION = 1
ROOM = 2048  # spare bytes in the header: a shorter stack's longer history must not make it longer
_CURVE_TOKENS = 2048
_SCORE_TOKENS = 1024


def compress(
    session: Session, model: Model, settings: Settings, given: dict[str, Any], out: Writer
) -> dict[str, Any]:
    """Make and write the stack of a model; returns the report."""
    source, device = history.fingerprint(model), session.torch_device()
    show = functools.partial(terminal.progress, session)
    windows = text_windows(model, given["calib"], given["calib_tokens"])
    with contextlib.ExitStack() as held:
        work = Work(given["work"], _identity(session, model, settings, windows)) if given["work"] else None
        if work is not None:
            held.callback(work.close)
        stacks = _stacks(model, windows, settings, Shelf(work), device, show)
        blocks = _ordered(stacks, settings, windows, device, show)
        measured = []
        if given["curve"]:
            chosen = curve.windows_for(windows, _CURVE_TOKENS)
            measured = curve.curve(stacks, blocks, chosen, given["curve"], device, show)
        sizes = _write(model, stacks, blocks, out)
    report = _report(model, stacks, blocks, settings, given["calib"], sizes)
    out.describe("stack", {"version": VERSION, "codec": stack.CODE, "curve": measured})
    out.describe("report", report)
    entry = history.entry("stack-compress", options.argv(), session.seed, [source.result()], session.started)
    out.describe("history", [*model.history, entry])
    return report


def _stacks(
    model: Model, windows: Tensor, settings: Settings, shelf: Shelf, device: str, show: build.Progress
) -> Stacks:
    recipe = Recipe(settings.planes)
    names = build.prepare(model, windows, settings, shelf, device, show)
    alpha = build.solve(model, shelf, names, settings.base, recipe, show)
    return build.build(model, shelf, names, alpha, recipe, show)


def _identity(session: Session, model: Model, settings: Settings, windows: Tensor) -> dict[str, Any]:
    """What the work folder depends on: all but the order of the blocks."""
    decides = {key: value for key, value in asdict(settings).items() if key not in ("sort", "seed")}
    return identity(
        "stack-compress", source_identity(model), settings=decides, seed=settings.seed,
        calibration=digest_of(windows), device=session.torch_device(),
    )  # fmt: skip


def _ordered(
    stacks: Stacks, settings: Settings, windows: Tensor, device: str, show: build.Progress
) -> list[Block]:
    if settings.sort == "layer":
        return order.by_layer(stacks.blocks)
    if settings.sort == "perplexity":
        chosen = curve.windows_for(windows, _SCORE_TOKENS)
        return order.by_score(stacks.blocks, curve.perplexity_scores(stacks, chosen, device, show))
    if settings.sort == "output-error":
        return order.greedy(stacks.blocks, lambda block: block.error)
    return order.greedy(stacks.blocks, lambda block: block.gain)


def _write(model: Model, stacks: Stacks, blocks: list[Block], out: Writer) -> dict[str, int]:
    """All tensors in their order; bytes of the streams."""
    out.compress, out.room = True, ROOM
    kept = [name for name in model.entries if name not in stacks.specs]
    kept.sort(
        key=lambda name: -BITS[model.entries[name].dtype]
    )  # so every offset is a multiple of its item's size
    for name in kept:
        out.add(name, model.tensor(name))
    tables = entropy.dump_tables(stacks.tables)
    out.add_raw(entropy.TABLES, "U8", (len(tables),), tables)
    sizes = {entropy.TABLES: len(tables)}
    for name, spec in stacks.specs.items():
        data = entropy.encode(stacks.coded(name), spec, stacks.tables)
        out.add_raw(spec.part_names(name)[0], "U8", (len(data),), data)
        sizes[name] = len(data)
    for name, spec in stacks.specs.items():
        bits = stacks.bits(name)
        for plane in range(spec.planes):
            for band in range(spec.bands):
                rows = spec.band_rows(band)
                out.add(
                    stack.block_name(name, plane + 1, band),
                    torch.from_numpy(bits[plane, rows.start : rows.stop]),
                )
    out.order = [*kept, entropy.TABLES, *(spec.part_names(name)[0] for name, spec in stacks.specs.items()),
                 *(stack.block_name(block.name, block.plane, block.band) for block in blocks)]  # fmt: skip
    table = packed.encode({name: (spec, {}) for name, spec in stacks.specs.items()})
    out.files = {**model.files, packed.FILE: json.dumps(table, separators=(",", ":")).encode()}
    out.config = {**model.config, "quantization_config": {"quant_method": "bntools", "version": packed.VERSION,
                                                          "code": stack.CODE}}  # fmt: skip
    return sizes


def _report(
    model: Model, stacks: Stacks, blocks: list[Block], settings: Settings, calib: str, sizes: dict[str, int]
) -> dict[str, Any]:
    linears = [name for name in stacks.specs if name in model.linears]
    weights = sum(model.entries[name].numel for name in linears)
    loss = sum(stacks.losses.values())
    return {
        "kind": "stack-compress",
        "codec": stack.CODE,
        "tensors": len(stacks.specs),
        "weights": sum(model.entries[name].numel for name in stacks.specs),
        "base_bits_per_weight": round(
            8 * (sizes[entropy.TABLES] + sum(sizes[name] for name in linears)) / weights, 4
        ),
        "blocks": len(blocks),
        "block_bytes": sum(block.nbytes for block in blocks),
        "predicted_kl": {"base": _four(loss), "all": _four(loss - sum(block.gain for block in blocks))},
        "step": _four(stacks.alpha),
        "settings": asdict(settings),
        "calib": calib,
    }


def _four(value: float) -> float:
    return float(f"{value:.4g}")


def truncate(session: Session, source: Artifact, out: Writer) -> dict[str, Any]:
    """A stack cut to what `source` gives of it, as a safetensors file that lacks nothing; returns the report."""
    inputs = {"label": source.label, "bytes": source.nbytes, "sha256": source.sha256()}
    names = source.names()
    out.order, out.room = [], 0
    for name in names:
        entry, data = source.entries[name], source.part(name)
        shape = entry.shape
        if name.startswith(BLOCK_PREFIX) and len(data) < entry.nbytes:
            if len(shape) != 2:
                raise bad_input(f"block {name!r} of {source.label} has no rows")
            rows = len(data) // shape[1]
            if not rows:
                continue
            shape, data = (rows, shape[1]), data[: rows * shape[1]]
        out.add_raw(name, entry.dtype, shape, data)
        out.order.append(name)
    out.files, out.compress = dict(source.files), True
    for key, value in source.metadata.items():
        if key not in ("bntools.files", "config.json"):
            out.metadata[key] = value
    out.config = source.json("config.json", dict)
    entry = history.entry("stack-compress", options.argv(), session.seed, [inputs], session.started)
    out.describe("history", [*source.history, entry])
    return {
        "kind": "stack-compress",
        "bytes": source.nbytes,
        "blocks": sum(n.startswith(BLOCK_PREFIX) for n in names),
    }
