"""BitStack (arXiv 2410.23918): every linear weight as levels of signs and low-rank sizes, scaled by its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bntools.core.artifact.writer import Writer
from bntools.core.importance.sensitivity import FisherMoments
from bntools.core.model.model import Model
from bntools.core.packing import bitstack
from bntools.core.system.threads import in_order
from bntools.core.work.array_store import Shelf
from bntools.kernels.stack import absolute_binary
from bntools.tools.stack_compress import build
from bntools.tools.stack_compress.order import Block
from bntools.tools.stack_compress.scaling import Scales

CODEC = bitstack.CODE
_IN_FLIGHT = 1 << 30


@dataclass(frozen=True)
class Settings:
    """What decides the stack; recorded in the report.

    rank: of the sizes of a level. levels: of a weight. scaling: of the inputs, `none`, `official` or `rms`. paper:
    the layout of the authors' program.
    """

    rank: int = 4
    levels: int = 8
    scaling: str = "rms"
    paper: bool = False
    embedding: bool = False
    sort: str = "fisher"
    rescore: int = 4
    seed: int = 0


@dataclass
class Made:
    """levels: bytes of each, [levels, bytes] uint8. losses, errors: [levels, out] float64, as in `encode.Stacked`."""

    levels: NDArray[np.uint8]
    losses: NDArray[np.float64]
    errors: NDArray[np.float64]
    energy: float


def encode(w: Tensor, moments: FisherMoments, scales: Scales, settings: Settings) -> Made:
    """The levels of W [out, in]; but for the paper, one that lowers no loss ends them."""
    target = w / scales.rows[:, None] * scales.inputs
    rank = min(settings.rank, *w.shape)
    stored, losses, errors = [], [], []
    so_far = np.zeros(tuple(w.shape), np.float32)
    for level in absolute_binary.decompose(
        target, rank, settings.levels, settings.seed, exact=settings.paper
    ):
        bits = np.packbits(level.positive.numpy(), axis=1, bitorder="little")
        absolute_binary.add(so_far, bits, level.left.float().numpy(), level.right.float().numpy())
        error = w - scales.undo(torch.from_numpy(so_far))
        per_row = (error @ moments.inputs).mul_(error).sum(1, dtype=torch.float64).numpy()
        loss = per_row * moments.rows.numpy() / 2
        if losses and not settings.paper and not loss.sum() < losses[-1].sum():
            break
        data = bitstack.dump(bits, level.left.numpy(), level.right.numpy())
        stored.append(np.frombuffer(data, np.uint8))
        losses.append(loss)
        errors.append(per_row)
    energy = float(((w @ moments.inputs) * w).sum(dtype=torch.float64))
    return Made(np.stack(stored), np.stack(losses), np.stack(errors), energy)


@dataclass
class Bitstacks:
    """Every decomposed matrix, put away on disk, with its spec and its blocks (see `order.Coding`)."""

    model: Model
    shelf: Shelf
    scales: Mapping[str, Scales]
    changed: Mapping[str, Tensor]
    specs: dict[str, bitstack.BitstackSpec] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)
    losses: dict[str, float] = field(default_factory=dict)

    codec = CODEC

    def _level(self, name: str, level: int) -> bytes:
        return self.shelf.get(f"levels {name}")[0][level - 1].tobytes()

    def dense(self, name: str, there: Mapping[tuple[int, int], int]) -> Tensor:
        """The weight [out, in] by the first level and so many bytes of each (level, band)."""
        spec, levels = self.specs[name], self.shelf.get(f"levels {name}")[0]
        first = spec.part_names(name)[0]

        def part(stored: str) -> bytes:
            level = 1 if stored == first else int(stored.rsplit("/", 2)[1])
            return levels[level - 1].tobytes()[: None if level == 1 else there.get((level, 0), 0)]

        weight = torch.from_numpy(bitstack.values(name, spec, part))
        scales = self.scales[name]
        return weight * scales.stored() if spec.scaled else scales.undo(weight)

    def rows(self, block: Block) -> slice:
        """All rows of a weight."""
        return slice(None)

    def base(self, out: Writer) -> tuple[list[str], dict[str, int]]:
        """Write what no prefix lacks; its tensors in order, and the bytes of each weight."""
        scaled = [(name, spec.part_names(name)[1]) for name, spec in self.specs.items() if spec.scaled]
        for name, stored in scaled:
            out.add(stored, self.scales[name].stored().half())
        first = {name: spec.part_names(name)[0] for name, spec in self.specs.items()}
        for name, stored in first.items():
            data = self._level(name, 1)
            out.add_raw(stored, "U8", (len(data),), data)
        return [*(stored for _, stored in scaled), *first.values()], {
            name: spec.level_bytes + 2 * spec.cols * spec.scaled for name, spec in self.specs.items()
        }

    def block(self, block: Block) -> tuple[tuple[int, ...], bytes]:
        """Shape and bytes of a block."""
        data = self._level(block.name, block.plane)
        return (len(data),), data

    def kept(self, name: str) -> Tensor:
        """A tensor that is not stacked."""
        return self.changed.get(name, self.model.tensor(name))


def stacks(
    model: Model, shelf: Shelf, names: list[str], scales: Mapping[str, Scales], changed: Mapping[str, Tensor],
    settings: Settings, progress: build.Progress,
) -> Bitstacks:  # fmt: skip
    """Decompose every matrix; those that an earlier run left on the shelf are taken from there.

    changed: kept tensors that are not those of the model.
    """
    coded = Bitstacks(model, shelf, scales, changed)

    def work(name: str) -> str:
        if not shelf.has(f"levels {name}"):
            made = encode(build.weight(model, name), build.moments_of(shelf, name), scales[name], settings)
            shelf.put(f"levels {name}", [made.levels, made.losses, made.errors / max(made.energy, 1e-300)])
        return name

    sizes = {name: model.entries[name].numel for name in names}
    largest = sorted(names, key=lambda name: -sizes[name])
    with progress("decomposing", sum(sizes.values())) as step:
        for name in in_order(work, largest, lambda name: 24 * sizes[name], _IN_FLIGHT):
            step(sizes[name])
    order = {name: index for index, name in enumerate(model.entries)}
    for name in sorted(names, key=order.__getitem__):
        entry, linear = model.entries[name], model.linears.get(name)
        levels, losses, errors = shelf.get(f"levels {name}")
        spec = bitstack.BitstackSpec(
            entry.shape, entry.dtype, linear is not None and linear.transposed, len(levels),
            min(settings.rank, *entry.shape), not scales[name].fused,
        )  # fmt: skip
        coded.specs[name] = spec
        coded.losses[name] = float(losses[0].sum())
        loss, error = losses.sum(1), errors.sum(1)
        coded.blocks += [
            Block(name, order[name], level + 1, 0, spec.level_bytes, float(loss[level - 1] - loss[level]),
                  float(error[level - 1] - error[level]))
            for level in range(1, len(levels))
        ]  # fmt: skip
    return coded
