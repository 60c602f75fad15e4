"""From settings to a written stack, and from a stack to a shorter one."""

from __future__ import annotations

import contextlib
import functools
import json
from dataclasses import asdict
from typing import Any

import numpy as np
from torch import Tensor

from bntools import options, terminal
from bntools.core.artifact.header import BITS, BLOCK_PREFIX
from bntools.core.artifact.reader import Artifact
from bntools.core.artifact.writer import Writer
from bntools.core.blockwise.windows import text_windows
from bntools.core.model import coverage, history
from bntools.core.model.identity import source_identity
from bntools.core.model.model import Model
from bntools.core.packing import entropy, grouped, stack
from bntools.core.report.values import four_digits
from bntools.core.work.array_store import Shelf
from bntools.core.work.folder import Work, digest_of, identity
from bntools.options import Session
from bntools.tools.stack_compress import bitstack, build, curve, order, scaling, shares
from bntools.tools.stack_compress.bitstack import Settings as BitSettings
from bntools.tools.stack_compress.build import Settings
from bntools.tools.stack_compress.compensated import SHARES, compensate
from bntools.tools.stack_compress.encode import Recipe
from bntools.tools.stack_compress.order import Block, Coding
from bntools.tools.stack_compress.rescore import rescored

VERSION = 1
ROOM = 2048  # spare bytes in the header: a shorter stack's longer history must not make it longer
_CURVE_TOKENS = 2048
_SCORE_TOKENS = 1024


def compress(
    session: Session, model: Model, settings: Settings | BitSettings, given: dict[str, Any], out: Writer
) -> dict[str, Any]:
    """Make and write the stack of a model; returns the report."""
    source, device = history.fingerprint(model), session.torch_device()
    show, shard = functools.partial(terminal.progress, session), given["shard"]
    windows = text_windows(model, given["calib"], given["calib_tokens"])
    part, units = _part_identity(model, settings, windows), _units(settings)
    with contextlib.ExitStack() as held:
        work = Work(given["work"], _identity(session, model, settings, windows)) if given["work"] else None
        if work is not None:
            held.callback(work.close)
        shelf = Shelf(work)
        if given["gather"]:
            wanted = build.names_of(model, settings)
            names = shares.gathered(shelf, wanted, units, given["gather"], part)
        else:
            names = build.prepare(model, windows, settings, shelf, device, show)
        left = "" if shard else coverage.left_dense(model, names)
        terminal.note(session, left)
        mine = shares.share(model, names, shard) if shard else names
        stacks = _stacks(model, names, mine, windows, settings, shelf, device, show)
        if shard:
            shares.write(shelf, mine, names, units, out, shard, part)
            return {"kind": shares.PART, "tensors": len(mine), "of": len(names)}
        blocks = _ordered(stacks, settings, windows, device, show)
        measured = []
        if given["curve"]:
            chosen = curve.windows_for(windows, _CURVE_TOKENS)
            measured = curve.curve(stacks, blocks, chosen, given["curve"], device, show)
        sizes = _write(model, stacks, blocks, out)
    report = _report(model, stacks, blocks, settings, given["calib"], sizes)
    out.describe("stack", {"version": VERSION, "codec": stacks.codec, "curve": measured})
    out.describe("report", report)
    entry = history.entry("stack-compress", options.argv(), session.seed, [source.result()], session.started)
    out.describe("history", [*model.history, entry])
    return report


def _stacks(
    model: Model, names: list[str], mine: list[str], windows: Tensor, settings: Settings | BitSettings,
    shelf: Shelf, device: str, show: build.Progress,
) -> Coding:  # fmt: skip
    """The stacks of the matrices `mine` of all `names`."""
    if isinstance(settings, BitSettings):
        sizes = scaling.measured(model, names, windows, settings.scaling, shelf, device, show)
        changed = {}
        if settings.paper:
            scales, changed = scaling.fused(model, sizes)
        else:
            scales = scaling.beside(model, sizes, settings.scaling != "none")
        return bitstack.stacks(model, shelf, mine, scales, changed, settings, show)
    recipe = Recipe(settings.planes)
    if not shelf.has(shares.ALPHA):
        bits = settings.base - (build.GROWTH if settings.compensate else 0)
        solved = build.solve(model, shelf, names, bits, recipe, show)
        shelf.put(shares.ALPHA, [np.array([solved])])
    alpha = float(shelf.get(shares.ALPHA)[0][0])
    if settings.compensate and not all(shelf.has(f"planes {name}") for name in mine):
        compensate(model, shelf, mine, alpha, recipe, windows, device, show)
    return build.build(model, shelf, mine, alpha, recipe, show)


def _units(settings: Settings | BitSettings) -> list[str]:
    """Kinds of units on the shelf of which a stack is made."""
    if not isinstance(settings, BitSettings):
        return ["base", "planes"]
    return ["levels", *([settings.scaling] if settings.scaling != "none" else [])]


def _part_identity(model: Model, settings: Settings | BitSettings, windows: Tensor) -> dict[str, Any]:
    return identity(
        "stack-compress", source_identity(model, times=False), settings=_decides(settings), seed=settings.seed,
        calibration=digest_of(windows),
    )  # fmt: skip


def _decides(settings: Settings | BitSettings) -> dict[str, Any]:
    """What the matrices depend on: all but the order of the blocks."""
    kept = {key: value for key, value in asdict(settings).items() if key not in ("sort", "rescore", "seed")}
    if isinstance(settings, BitSettings):
        return {"codec": bitstack.CODEC} | kept
    return {"codec": stack.CODE} | kept | {"recipe": asdict(Recipe(settings.planes)), "shares": SHARES}


def _identity(
    session: Session, model: Model, settings: Settings | BitSettings, windows: Tensor
) -> dict[str, Any]:
    """What the work folder depends on."""
    return identity(
        "stack-compress", source_identity(model), settings=_decides(settings), seed=settings.seed,
        calibration=digest_of(windows), device=session.torch_device(),
    )  # fmt: skip


def _ordered(
    stacks: Coding, settings: build.Asked, windows: Tensor, device: str, show: build.Progress
) -> list[Block]:
    if settings.sort == "layer":
        return order.by_layer(stacks.blocks)
    if settings.sort == "perplexity":
        chosen = curve.windows_for(windows, _SCORE_TOKENS)
        return order.by_score(stacks.blocks, curve.perplexity_scores(stacks, chosen, device, show))
    if settings.sort == "output-error":
        return order.greedy(stacks.blocks, lambda block: block.error)
    if settings.rescore and stacks.blocks:
        return rescored(stacks, curve.windows_for(windows, _CURVE_TOKENS), settings.rescore, device, show)
    return order.greedy(stacks.blocks, lambda block: block.gain)


def _write(model: Model, stacks: Coding, blocks: list[Block], out: Writer) -> dict[str, int]:
    """All tensors in their order; bytes of what belongs to the base of each weight."""
    out.compress, out.room = True, ROOM
    kept = [name for name in model.entries if name not in stacks.specs]
    kept.sort(
        key=lambda name: -BITS[model.entries[name].dtype]
    )  # so every offset is a multiple of its item's size
    for name in kept:
        out.add(name, stacks.kept(name))
    base, sizes = stacks.base(out)
    order = {name: index for index, name in enumerate(stacks.specs)}
    for block in sorted(blocks, key=lambda block: order[block.name]):  # those of one matrix together
        shape, data = stacks.block(block)
        out.add_raw(stack.block_name(block.name, block.plane, block.band), "U8", shape, data)
    out.order = [*kept, *base, *(stack.block_name(block.name, block.plane, block.band) for block in blocks)]
    table = grouped.encode({name: (spec, {}) for name, spec in stacks.specs.items()})
    out.files = {**model.files, grouped.FILE: json.dumps(table, separators=(",", ":")).encode()}
    out.config = {**model.config, "quantization_config": {"quant_method": "bntools", "version": grouped.VERSION,
                                                          "code": stacks.codec}}  # fmt: skip
    return sizes


def _report(
    model: Model, stacks: Coding, blocks: list[Block], settings: Settings | BitSettings, calib: str,
    sizes: dict[str, int],
) -> dict[str, Any]:  # fmt: skip
    linears = [name for name in stacks.specs if name in model.linears]
    weights = sum(model.entries[name].numel for name in linears)
    loss = sum(stacks.losses.values())
    return {
        "kind": "stack-compress",
        "codec": stacks.codec,
        "tensors": len(stacks.specs),
        "weights": sum(model.entries[name].numel for name in stacks.specs),
        "base_bits_per_weight": round(
            8 * (sizes.get(entropy.TABLES, 0) + sum(sizes[name] for name in linears)) / weights, 4
        ),
        "blocks": len(blocks),
        "block_bytes": sum(block.nbytes for block in blocks),
        "predicted_kl": {
            "base": four_digits(loss),
            "all": four_digits(loss - sum(block.gain for block in blocks)),
        },
        **({"step": four_digits(stacks.alpha)} if isinstance(stacks, build.Stacks) else {}),
        "settings": asdict(settings),
        "calib": calib,
    }


def truncate(session: Session, source: Artifact, out: Writer) -> dict[str, Any]:
    """A stack cut to what `source` gives of it, as a safetensors file that lacks nothing; returns the report."""
    inputs = {"label": source.label, "bytes": source.nbytes, "sha256": source.sha256()}
    names = source.names()
    out.order, out.room = [], 0
    for name in names:
        entry, data = source.entries[name], source.part(name)
        shape = entry.shape
        if name.startswith(BLOCK_PREFIX) and len(data) < entry.nbytes:
            if len(shape) == 2:
                data = data[: len(data) // shape[1] * shape[1]]
            shape = (len(data) // shape[1], shape[1]) if len(shape) == 2 else (len(data),)
            if not data:
                continue
        out.add_raw(name, entry.dtype, shape, data)
        out.order.append(name)
    out.files = {name: data for name, data in source.files.items() if name != "config.json"}
    out.compress = True
    for key, value in source.metadata.items():
        if key not in ("bntools.files", "config.json"):
            out.metadata[key] = value
    out.config = source.config or None
    entry = history.entry("stack-compress", options.argv(), session.seed, [inputs], session.started)
    out.describe("history", [*source.history, entry])
    return {
        "kind": "stack-compress",
        "bytes": source.nbytes,
        "blocks": sum(n.startswith(BLOCK_PREFIX) for n in names),
    }
