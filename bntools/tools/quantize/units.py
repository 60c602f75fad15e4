"""Finished tensors put away and taken back: a --work folder's units, the parts of a sharded run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from bntools.core.artifact.reader import Artifact, parse_json
from bntools.core.errors import BnError, bad_input
from bntools.core.model.identity import source_identity
from bntools.core.packing import grouped
from bntools.core.packing.grouped import GroupSpec
from bntools.core.work import shards
from bntools.core.work.folder import Work, failed_unit, identity
from bntools.core.work.shards import Shard
from bntools.tools.quantize.plan import Choice, Importance, Item, Result, Task

PART = "model-part"
CHOICES, MOMENTS = "choices", "moments"


def table(results: Iterable[Result]) -> dict[str, Any]:
    """What quantization.json says of some results."""
    return grouped.encode({r.name: (r.spec, r.measured) for r in results if r.spec})


def restored(source: Artifact, specs: Mapping[str, Any]) -> Iterator[Result]:
    """Results from the tensors of an artifact and their table, in the table's order."""
    for name, spec in grouped.decode(specs).items():
        if not isinstance(spec, GroupSpec):
            raise bad_input(f"{source.label}: {name!r} has no fixed codes")
        stored = grouped.part_names(name, spec)
        if any(part not in source.entries for part in stored):
            raise bad_input(f"{source.label} lacks tensor {name!r}")
        fixed = spec.as_json()
        measured = {key: value for key, value in specs["tensors"][name].items() if key not in fixed}
        yield Result(name, {part: source.tensor(part) for part in stored}, spec, measured)


def save(work: Work, unit: str, results: list[Result]) -> None:
    tensors = {name: tensor for result in results for name, tensor in result.tensors.items()}
    work.save(unit, tensors, table(results))


def load(work: Work, unit: str) -> list[Result]:
    source, specs = work.load(unit)
    with source:
        try:
            return list(restored(source, specs))
        except BnError as error:
            raise failed_unit(unit, error) from None


def resumed(
    work: Work | None, items: list[Item], compute: Callable[[list[Item]], Iterator[Result]]
) -> Iterator[Result]:
    """`compute(items)`, a tensor a unit: those of `work` are taken from there, the others put there."""
    if work is None:
        yield from compute(items)
        return
    unit = "tensor {}".format
    left = [item for item in items if item.grid is None or not work.has(unit(item.name))]
    todo = {item.name for item in left}
    fresh = compute(left)
    for item in items:
        if item.name not in todo:
            yield from load(work, unit(item.name))
            continue
        result = next(fresh)
        if result.spec is not None:
            save(work, unit(result.name), [result])
        yield result


def share(task: Task, shard: Shard) -> list[Item]:
    """The tensors of one part: those to be quantized, neighbours, about as many bytes in each part."""
    sizes = [task.model.entries[item.name].nbytes for item in task.chosen]
    return [task.chosen[index] for index in shard.of(sizes)]


def part_of(task: Task, shard: Shard) -> dict[str, Any]:
    """Metadata `bntools.part` of a part's artifact."""
    return shards.describe(shard, _identity(task))


def _identity(task: Task) -> dict[str, Any]:
    return identity("quantize", source_identity(task.model, times=False), settings=task.settings.as_json())


def gathered(task: Task, paths: Iterable[str]) -> Iterator[Result]:
    """The results of all parts in checkpoint order; what is kept comes from the model."""
    homes: dict[str, tuple[Artifact, dict[str, Any]]] = {}
    for part in shards.open_parts(paths, PART, _identity(task)):
        specs = parse_json(part.files.get(grouped.FILE, b"{}"), dict, f"{part.label}: {grouped.FILE}")
        homes.update(dict.fromkeys(specs.get("tensors", {}), (part, specs)))
    for item in task.items:
        if item.grid is None:
            yield Result(item.name, {item.name: task.model.tensor(item.name)}, reason=item.reason)
            continue
        if item.name not in homes:
            raise bad_input(f"no part holds {item.name}", "were the parts made from this model?")
        part, specs = homes[item.name]
        one = {"version": specs["version"], "tensors": {item.name: specs["tensors"][item.name]}}
        yield from restored(part, one)


def choices(work: Work | None, compute: Callable[[], dict[str, Choice]]) -> dict[str, Choice]:
    """The dimensions chosen, from `work` where they are known."""
    if work is None:
        return compute()
    if not work.has(CHOICES):
        work.save(CHOICES, {}, {name: asdict(choice) for name, choice in compute().items()})
    source, stored = work.load(CHOICES)
    source.close()
    return {name: Choice(**value) for name, value in stored.items()}


def importance(work: Work | None, compute: Callable[[], Importance]) -> Importance:
    """The importance of the inputs, from `work` where it is known."""
    if work is None:
        return compute()
    if not work.has(MOMENTS):
        work.save(MOMENTS, dict(compute()), {})
    source, _ = work.load(MOMENTS)
    with source:
        return {name: source.tensor(name) for name in source.names()}
