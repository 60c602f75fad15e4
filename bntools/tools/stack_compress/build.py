"""A whole model as a stack: a sweep for the moments, a constant for the base's size, every matrix, their order."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bntools.core.artifact import dtypes
from bntools.core.artifact.header import Entry
from bntools.core.artifact.writer import Writer
from bntools.core.errors import bad_input
from bntools.core.importance import sensitivity
from bntools.core.importance.sensitivity import FisherMoments
from bntools.core.model.model import Model
from bntools.core.packing import entropy, stack
from bntools.core.progress import Progress
from bntools.core.system.threads import in_order
from bntools.core.work.array_store import Shelf
from bntools.kernels.entropy import rans
from bntools.tools.stack_compress import encode
from bntools.tools.stack_compress.encode import Recipe, Stacked
from bntools.tools.stack_compress.order import Block

IN_FLIGHT = 1 << 30  # bytes of weights worked on at once
_SAMPLE, _FEW = 5, 15  # every so many blocks the constant is found on, and set right
_TRIALS = 3
_SMALLEST = 8  # a matrix with fewer rows or columns is a gate, not worth a code
_CLOSE = 0.01  # bits
GROWTH = 0.045  # bits per weight of the base, by which weights that make up for others grow: found on SmolLM2


class Asked(Protocol):
    """What every codec is asked."""

    @property
    def embedding(self) -> bool: ...

    @property
    def sort(self) -> str: ...

    @property
    def rescore(self) -> int: ...

    @property
    def seed(self) -> int: ...


@dataclass(frozen=True)
class Settings:
    """What decides a stack of planes; recorded in the report. base: bits per linear weight of the base."""

    base: float = 2.3
    planes: int = 4
    embedding: bool = True
    compensate: bool = True
    sort: str = "fisher"
    rescore: int = 4
    seed: int = 0


@dataclass
class Stacks:
    """Every coded matrix, put away on disk, with its spec and its blocks (see `order.Coding`), and their tables."""

    model: Model
    shelf: Shelf
    alpha: float
    specs: dict[str, stack.StackSpec]
    blocks: list[Block]
    losses: dict[str, float]
    tables: entropy.Tables

    def coded(self, name: str) -> entropy.EntropyCoded:
        return entropy.EntropyCoded(*self.shelf.get(f"base {name}"))  # type: ignore[arg-type]

    def bits(self, name: str) -> NDArray[np.uint8]:
        """All planes of a matrix [planes, rows, width], rows in the order of the planes."""
        return self.shelf.get(f"planes {name}")[0]  # type: ignore[return-value]

    codec = stack.CODE

    def dense(self, name: str, there: Mapping[tuple[int, int], int]) -> Tensor:
        """The weight [out, in] by the base and so many bytes of each (plane, band)."""
        spec, bits = self.specs[name], self.bits(name)

        def part(block: str) -> bytes:
            plane, band = map(int, block.rsplit("/", 2)[1:])
            rows = spec.band_rows(band)
            return bits[plane - 1, rows.start : rows.stop].tobytes()[: there.get((plane, band), 0)]

        base = stack.Base.of(self.coded(name), self.tables.shrink, encode.OCTAVE)
        return base.dense(stack.Planes.read(name, spec, part), torch.float32, transposed=False)

    def rows(self, block: Block) -> NDArray[np.intp]:
        """The rows of its weight that a block is of."""
        return stack.row_order(self.coded(block.name).row_scale)[self.specs[block.name].band_rows(block.band)]

    def base(self, out: Writer) -> tuple[list[str], dict[str, int]]:
        """Write what no prefix lacks; its tensors in order, and the bytes of each weight and of the tables."""
        tables = entropy.dump_tables(self.tables)
        out.add_raw(entropy.TABLES, "U8", (len(tables),), tables)
        order, sizes = [entropy.TABLES], {entropy.TABLES: len(tables)}
        for name, spec in self.specs.items():
            data = entropy.encode(self.coded(name), spec, self.tables)
            order += spec.part_names(name)
            out.add_raw(order[-1], "U8", (len(data),), data)
            sizes[name] = len(data)
        return order, sizes

    def block(self, block: Block) -> tuple[tuple[int, ...], bytes]:
        """Shape and bytes of a block."""
        spec = self.specs[block.name]
        rows = spec.band_rows(block.band)
        return (len(rows), spec.width), self.bits(block.name)[
            block.plane - 1, rows.start : rows.stop
        ].tobytes()

    def kept(self, name: str) -> Tensor:
        """A tensor that is not stacked."""
        return self.model.tensor(name)


def names_of(model: Model, settings: Asked) -> list[str]:
    """What will be coded: linear weights of two dimensions and, if asked for, embedding and head."""
    entries = model.entries
    linears = [name for name in model.linears if _worth(entries[name])]
    return linears + (list(sensitivity.embeddings(model)) if settings.embedding else [])


def _worth(entry: Entry) -> bool:
    return len(entry.shape) == 2 and min(entry.shape) >= _SMALLEST and entry.dtype in dtypes.FLOATS


def prepare(
    model: Model, windows: Tensor, settings: Asked, shelf: Shelf, device: str, progress: Progress
) -> list[str]:
    """Sweep over the calibration windows, once; names of the tensors whose moments are on the shelf, in order.

    Raises BnError (exit 3) where no linear weight lies in a block.
    """
    wanted = names_of(model, settings)
    if not shelf.has("swept"):
        with progress("calibrating", sensitivity.sweep_tokens(model, windows)) as step:
            swept = sensitivity.moments(
                model,
                set(wanted),
                windows,
                embedding=settings.embedding,
                seed=settings.seed,
                device=device,
                step=step,
            )
            for name, moments in swept:
                shelf.put(f"moments {name}", [part.numpy() for part in moments])
        shelf.put("swept", [np.zeros(1, np.uint8)])
    names = [name for name in wanted if shelf.has(f"moments {name}")]
    if not any(name in model.linears for name in names):
        raise bad_input("no linear weight lies in the model's blocks", "bntools info MODEL --tensors")
    return names


def moments_of(shelf: Shelf, name: str) -> FisherMoments:
    return FisherMoments(*(torch.from_numpy(part) for part in shelf.get(f"moments {name}")))


def weight(model: Model, name: str) -> Tensor:
    """W [out, in] in float32."""
    w, linear = model.tensor(name, torch.float32), model.linears.get(name)
    return w.T.contiguous() if linear is not None and linear.transposed else w


def solve(
    model: Model, shelf: Shelf, names: list[str], bits: float, recipe: Recipe, progress: Progress
) -> float:
    """The constant at which the linears' base takes about so many bits per weight, found on every fifth block.

    The rate falls by a bit when the constant doubles.
    """
    linears = [name for name in names if name in model.linears]
    chosen, few = _sample(linears, _SAMPLE), _sample(linears, _FEW)
    alpha = _first(model, shelf, chosen, bits, recipe)

    def rate(names: list[str], code: Callable[..., Stacked]) -> float:
        """Bits a weight of these matrices at the constant as it is."""
        counter, weights = entropy.Counter(False), sum(model.entries[name].numel for name in names)

        def work(name: str) -> tuple[str, entropy.EntropyCoded]:
            return name, code(weight(model, name), moments_of(shelf, name), alpha, recipe).coded

        with progress("finding the step", weights) as step:
            for name, coded in in_order(work, names, lambda name: 32 * model.entries[name].numel, IN_FLIGHT):
                counter.add(coded)
                step(model.entries[name].numel)
        return counter.bits() / weights

    for _ in range(_TRIALS):
        reached = rate(chosen, encode.base)
        alpha *= 2 ** (reached - bits)
        if abs(reached - bits) < _CLOSE:
            break
    # what planes add to the base where they are chosen with it, on few blocks as that takes longer
    return alpha * 2 ** (rate(few, encode.whole) - rate(few, encode.base))


def _first(model: Model, shelf: Shelf, names: list[str], bits: float, recipe: Recipe) -> float:
    """A constant from the weights' size in steps: the entropy of a Gaussian is log2(sigma / step) + 2.05 bits."""
    total = weights = 0.0
    for name in names:
        w = weight(model, name)
        sigma = math.log2(max(float(w.square().mean().sqrt()), 1e-30))
        _, row, col = encode.sides(moments_of(shelf, name), 1.0, recipe.base)
        steps = (float(row.mean()) + float(col.mean())) / encode.OCTAVE
        total += (sigma - steps) * w.numel()
        weights += w.numel()
    return 2 ** (total / weights + 1.8 - bits)


def _sample(names: list[str], every: int) -> list[str]:
    """Tensors of every so many blocks, of two at least."""
    blocks = {name: next((int(part) for part in name.split(".") if part.isdigit()), 0) for name in names}
    numbers = sorted(set(blocks.values()))
    every = min(every, max(1, len(numbers) // 2))
    chosen = set(numbers[every // 2 :: every])
    return [name for name in names if blocks[name] in chosen]


def build(
    model: Model, shelf: Shelf, names: list[str], alpha: float, recipe: Recipe, progress: Progress
) -> Stacks:
    """Code every matrix on from what is on the shelf of it; those that an earlier run finished are taken from there."""
    counter, stacks = entropy.Counter(False), Stacks(model, shelf, alpha, {}, [], {}, None)  # type: ignore[arg-type]
    order = {name: index for index, name in enumerate(model.entries)}

    def work(name: str) -> str:
        if not shelf.has(f"planes {name}"):
            w, moments = weight(model, name), moments_of(shelf, name)
            _finish(shelf, name, encode.encode(w, moments, alpha, recipe, layers(shelf, name)))
        return name

    sizes = {name: model.entries[name].numel for name in names}
    largest = sorted(names, key=lambda name: -sizes[name])  # first, so that none is left alone at the end
    with progress("coding", sum(sizes.values())) as step:
        for name in in_order(work, largest, lambda name: 16 * sizes[name], IN_FLIGHT):
            step(sizes[name])
    for name in sorted(names, key=order.__getitem__):
        coded = stacks.coded(name)
        counter.add(coded)
        entry, linear = model.entries[name], model.linears.get(name)
        bits, losses, errors, trellis = shelf.get(f"planes {name}")
        base = entropy.spec(entry.shape, entry.dtype, linear is not None and linear.transposed, encode.OCTAVE)
        spec = stack.spec(base, len(bits), stack.band_rows(base.rows, -(-base.cols // 8)), int(trellis[0]))
        stacks.specs[name] = spec
        stacks.blocks += _blocks(name, order[name], spec, losses, errors)
        stacks.losses[name] = float(losses[0].sum())
    stacks.tables = counter.tables(np.ones(rans.CLASSES, np.float32))
    return stacks


def layers(shelf: Shelf, name: str) -> Stacked | None:
    """What is on the shelf of a matrix that is not finished: its base, and the planes that have come."""
    if not shelf.has(f"layers {name}"):
        return None
    bits, losses, errors, energy, trellis = shelf.get(f"layers {name}")
    coded = entropy.EntropyCoded(*shelf.get(f"base {name}"))  # type: ignore[arg-type]
    return Stacked(coded, bits, losses, errors, float(energy[0]), int(trellis[0]))


def put_layers(shelf: Shelf, name: str, made: Stacked) -> None:
    """Put away the planes that have come, and the base if it is new."""
    _put_base(shelf, name, made)
    rest = [np.array([made.energy]), np.array([made.trellis])]
    shelf.put(f"layers {name}", [made.planes, made.losses, made.errors, *rest])


def _put_base(shelf: Shelf, name: str, made: Stacked) -> None:
    if not shelf.has(f"base {name}"):
        shelf.put(f"base {name}", [made.coded.levels, *(made.coded.side(kind) for kind in entropy.SIDES)])


def _finish(shelf: Shelf, name: str, made: Stacked) -> None:
    """Rows of planes and losses in the order of the planes. errors: relative to the output's energy."""
    _put_base(shelf, name, made)
    order = stack.row_order(made.coded.row_scale)
    errors = made.errors[:, order] / max(made.energy, 1e-300)
    layers = [made.planes[:, order], made.losses[:, order], errors, np.array([made.trellis])]
    shelf.put(f"planes {name}", layers)


def _blocks(name: str, index: int, spec: stack.StackSpec, losses: Any, errors: Any) -> list[Block]:
    blocks = []
    for plane in range(spec.planes):
        for band in range(spec.bands):
            rows = spec.band_rows(band)
            part = slice(rows.start, rows.stop)
            gain, error = (
                float((sums[plane, part] - sums[plane + 1, part]).sum()) for sums in (losses, errors)
            )
            blocks.append(Block(name, index, plane + 1, band, len(rows) * spec.width, gain, error))
    return blocks
