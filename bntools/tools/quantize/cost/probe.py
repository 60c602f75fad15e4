"""What a run will take: memory from the sizes of what it holds, time from a short probe of this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from bntools.core.blockwise.blocks import BATCH_TOKENS
from bntools.core.model.model import Model
from bntools.core.system.bfloat16 import gains
from bntools.core.system.threads import single_threaded
from bntools.core.work.states import RESIDENT
from bntools.tools.quantize.fixed import coded_grids
from bntools.tools.quantize.fixed.gptq import IN_FLIGHT, How, coding_bytes, gptq
from bntools.tools.quantize.fixed.round_to_nearest import rounded
from bntools.tools.quantize.plan import Item
from bntools.tools.quantize.settings import Settings

LIBRARIES = 560_000_000  # resident bytes of torch, transformers and a tokenizer, loaded
_PROBE = 768  # rows and columns of the probe's matrices


def calibrated_bytes(model: Model, items: list[Item], tokens: int, window: int) -> int:
    """Peak memory of `calibrated`: a block, its Hessians and the states of its pass, or what codes its linears."""
    blocks = by_block(model, items)
    if not blocks:
        return LIBRARIES
    width = int(model.config.get("hidden_size") or model.config.get("n_embd") or 0)
    states = 4 * tokens * width
    states = states if states <= RESIDENT else 0
    workers = torch.get_num_threads()
    peak = 0
    for path, linears in blocks.items():
        inside = [entry for name, entry in model.entries.items() if name.startswith(f"{path}.")]
        weights, mapped = 4 * sum(entry.numel for entry in inside), sum(entry.nbytes for entry in inside)
        hessians = 4 * sum(size * size for size in inputs_of(linears))
        widest = max(out for _, out, _ in linears)
        batch = 4 * min(tokens, max(BATCH_TOKENS, window)) * (6 * width + 4 * widest)
        jobs = [coding_bytes(out * size, size) for size, out, _ in linears]
        coding = max(max(jobs), min(IN_FLIGHT, workers * max(jobs)))
        peak = max(peak, mapped + hessians + max(weights + workers * batch, coding))
    embedding = 4 * max(entry.numel for entry in model.entries.values())
    return LIBRARIES + states + max(peak, embedding)


def calibrated_seconds(
    model: Model, items: list[Item], settings: Settings, tokens: int, window: int
) -> float:
    """Time of `calibrated`: forward pass and Hessians at the rate of a product, coding at that of a probe."""
    workers = torch.get_num_threads()
    rate = product_rate()
    blocks = by_block(model, items)
    total = coding_seconds(model, items, settings, rate)
    for path, linears in blocks.items():
        inside = [e for name, e in model.entries.items() if name.startswith(f"{path}.") and len(e.shape) > 1]
        active = sum(e.numel * _active(model, e.shape) for e in inside)
        forward = 2 * active + 4 * window * min(size for size, _, _ in linears)
        hessians = sum(size * size * (1 + 1 / 16) for size in inputs_of(linears))
        passes = 1 + (len(inputs_of(linears)) if settings.sequential else 0)
        total += tokens * (passes * forward + hessians) / (rate * workers)
    return total


def coding_seconds(model: Model, items: list[Item], settings: Settings, rate: float) -> float:
    """Time of GPTQ on matrices whose second moments are there, one a thread unless they are large."""
    workers, coding, total = torch.get_num_threads(), _coding_seconds(settings, rate), 0.0
    for linears in by_block(model, items).values():
        jobs = [coding(size, out) for size, out, _ in linears]
        large = [2 * coding_bytes(size * out, size) > IN_FLIGHT for size, out, _ in linears]
        total += sum(job if alone else job / workers for job, alone in zip(jobs, large, strict=True))
    return total


def rounding_seconds(model: Model, items: list[Item], settings: Settings) -> float:
    """Time of round-to-nearest: the probe's rate, and reading the tensors."""
    chosen = [item for item in items if item.grid]
    weights = sum(model.entries[item.name].numel for item in chosen)
    if not chosen:
        return 0.0
    w, grid = torch.randn(_PROBE, _PROBE), settings.grid
    dim = "oc" if grid.dim == "ada" else grid.dim
    search, h = ("minmax", None) if dim == "ic" else (settings.search, torch.ones(_PROBE))
    if grid.meta:
        spent = least(lambda: coded_grids.by_rounding(w, torch.ones(_PROBE), grid), 1)
    else:
        spent = least(lambda: rounded(w, grid, flipped=dim == "ic", search=search, importance=h))
    began = time.perf_counter()
    size = model.tensor(chosen[0].name).nbytes
    reading = (time.perf_counter() - began) / max(size, 1)
    everything = sum(entry.nbytes for entry in model.entries.values())
    return weights * spent / w.numel() / torch.get_num_threads() + everything * reading


def by_block(model: Model, items: list[Item]) -> dict[str, list[tuple[int, int, str]]]:
    """(inputs, outputs, path of the parent) of the matrices to be coded, by the path of the block they lie in."""
    blocks: dict[str, list[tuple[int, int, str]]] = {}
    for item in items:
        entry = model.entries[item.name]
        if item.grid is None or item.linear is None or len(entry.shape) != 2:
            continue
        words = item.linear.module.split(".")
        at = next((index for index, word in enumerate(words) if word.isdecimal()), None)
        if at is None:
            continue
        rows, cols = reversed(entry.shape) if item.linear.transposed else entry.shape
        stored = item.name.split(".")
        path = ".".join(stored[: next(i for i, word in enumerate(stored) if word.isdecimal()) + 1])
        blocks.setdefault(path, []).append((cols, rows, ".".join(words[:-1])))
    return blocks


def inputs_of(linears: list[tuple[int, int, str]]) -> list[int]:
    """Widths of the distinct inputs: the linears of a module share theirs, but its output linear has its own."""
    parents: dict[str, list[int]] = {}
    for size, _, parent in linears:
        parents.setdefault(parent, []).append(size)
    return [
        size
        for sizes in parents.values()
        for size in sorted(set(sizes)) * (2 if len(sizes) > 1 and len(set(sizes)) == 1 else 1)
    ]


def _active(model: Model, shape: tuple[int, ...]) -> float:
    """Share of a stack of experts that a token meets."""
    chosen = model.config.get("num_experts_per_tok")
    return min(1.0, chosen / shape[0]) if len(shape) == 3 and chosen else 1.0


def least(work: Callable[[], Any], times: int = 3) -> float:
    best = float("inf")
    work()
    for _ in range(times):
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return best


def product_rate() -> float:
    """Floating-point operations a second of one of several threads that multiply float32 at once."""
    return _rate(torch.float32)


def mixed_rate() -> float:
    """The same of linears in mixed precision (`core.precision`)."""
    return _rate(torch.bfloat16 if gains("cpu") else torch.float32)


def _rate(dtype: torch.dtype) -> float:
    a, b = torch.randn(BATCH_TOKENS, _PROBE, dtype=dtype), torch.randn(_PROBE, _PROBE, dtype=dtype)
    with single_threaded() as (pool, workers):
        spent = least(lambda: list(pool.map(lambda _: a @ b, range(workers))))
    return 2 * BATCH_TOKENS * _PROBE * _PROBE / spent


def element_rate() -> float:
    """Elements a second that one of several threads multiplies one by one, out of cache."""
    a = torch.randn(BATCH_TOKENS, 4 * _PROBE)
    with single_threaded() as (pool, workers):
        spent = least(lambda: list(pool.map(lambda _: a * 2.0, range(workers))))
    return a.numel() / spent


def _coding_seconds(settings: Settings, rate: float) -> Callable[[int, int], float]:
    """Seconds to code a matrix of given inputs and outputs, from two small ones.

    The factorisation takes about 1.7 in^3 operations, feedback in^2 out and the output's error four times that, polish
    about six times for its first round, at the rate of products. What is left of the probe's time grows with the
    columns and with the weights.
    """
    passes = 5 + (2 + 4 * settings.rounds if settings.rounds else 0)
    x = torch.randn(2 * _PROBE, _PROBE)
    hessian = x.T @ x / len(x)

    def products(size: int, out: int) -> float:
        return (1.7 * size**3 + passes * size * size * out) / rate

    def probe(out: int) -> float:
        w, wanted = torch.randn(out, _PROBE), settings.grid
        grid = replace(
            wanted, group=min(wanted.group, _PROBE), dim="oc" if wanted.dim == "ada" else wanted.dim
        )
        with single_threaded() as (pool, _):
            spent = least(
                lambda: pool.submit(gptq, w, hessian, grid, How(settings.search, settings.rounds)).result(),
                1,
            )
        return max(spent - products(_PROBE, out), 0.0)

    small, large = probe(_PROBE // 4), probe(_PROBE)
    a_weight = max(large - small, 0.0) / (_PROBE * (_PROBE - _PROBE // 4))
    a_column = max(large / _PROBE - a_weight * _PROBE, 0.0)
    return lambda size, out: products(size, out) + size * (a_column + out * a_weight)
