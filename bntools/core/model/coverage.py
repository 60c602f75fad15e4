"""What of a model's repeated blocks is left as it was by a tool that codes weights."""

from __future__ import annotations

from collections.abc import Collection

from bntools.core.architecture import linears
from bntools.core.model.model import Model

_NOTABLE = 0.05  # of the weights in the blocks


def left_dense(model: Model, coded: Collection[str], asked: Collection[str] = ()) -> str:
    """A sentence where more than 5 % of the weights in the blocks stay dense, else an empty one.

    coded: tensors that are coded. asked: those that stay because the user said so, and routers, do not count.
    """
    inside = [name for name in model.entries if len(model.entries[name].shape) > 1]
    inside = [name for name in linears.block_tensors(model.config, inside) if name not in model.routers]
    sizes = {name: model.entries[name].numel for name in inside if name not in asked}
    dense = sorted((name for name in sizes if name not in coded), key=lambda name: -sizes[name])
    share = sum(sizes[name] for name in dense) / max(sum(sizes.values()), 1)
    if share <= _NOTABLE:
        return ""
    shape = list(model.entries[dense[0]].shape)
    return f"{100 * share:.0f} % of the weights in the blocks stay dense: {len(dense)} tensors, as {dense[0]} {shape}"
