"""A stack made in parts: each machine codes its share of the matrices, and one joins them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from bntools.core.artifact.writer import Writer
from bntools.core.errors import bad_input
from bntools.core.model.model import Model
from bntools.core.work import shards
from bntools.core.work.array_store import Shelf
from bntools.core.work.shards import Shard

PART = "stack-part"
ALPHA = "alpha"


def share(model: Model, names: list[str], shard: Shard) -> list[str]:
    """The matrices of a part: neighbours in the checkpoint."""
    return [names[index] for index in shard.of([model.entries[name].numel for name in names])]


def write(
    shelf: Shelf, mine: list[str], all_of: list[str], units: Iterable[str], out: Writer, shard: Shard,
    identity: Mapping[str, Any],
) -> None:  # fmt: skip
    """Write what the shelf has of the matrices `mine` among `all_of`, by kind of unit, as a part."""
    names = [f"{unit} {name}" for name in mine for unit in units]
    for name in [*names, *([ALPHA] if shelf.has(ALPHA) else [])]:
        for index, array in enumerate(shelf.get(name)):
            out.add(f"{name}/{index}", torch.from_numpy(array))
    out.describe("part", {**shards.describe(shard, identity), "matrices": len(all_of)})


def gathered(
    shelf: Shelf, wanted: list[str], units: Iterable[str], paths: Iterable[str], identity: Mapping[str, Any]
) -> list[str]:
    """Put what the parts hold on the shelf; the wanted matrices that there are, in order.

    Raises BnError (exit 3) as `core.parts.open_parts` does, and where the parts lack matrices.
    """
    shared: set[str] = set()
    count = 0
    for part in shards.open_parts(paths, PART, identity):
        with part:
            held: dict[str, list[str]] = {}
            for name in sorted(part.names(), key=lambda name: int(name.rpartition("/")[2])):
                held.setdefault(name.rpartition("/")[0], []).append(name)
            for unit, tensors in held.items():
                shelf.put(unit, [part.tensor(name).numpy() for name in tensors])
            shared |= held.keys()
            count = int(part.json("bntools.part", dict).get("matrices", 0))
    names = [name for name in wanted if all(f"{unit} {name}" in shared for unit in units)]
    if len(names) != count:
        raise bad_input(f"the parts hold {len(names)} matrices of {count}", "make them again, of one model")
    return names
