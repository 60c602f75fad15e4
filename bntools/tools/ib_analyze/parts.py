"""Points that are kept: in a --work folder by the content of their layer, or as part I of N to be joined."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bntools.core.errors import bad_input
from bntools.core.information.epochs import Dump, LayerDump
from bntools.core.work import array_parts
from bntools.core.work.folder import Work, identity
from bntools.core.work.shards import Shard
from bntools.tools.ib_analyze.points import Point, Shared, measure
from bntools.tools.ib_analyze.settings import Planes

KIND = "ib-analyze-part"
Arrays = dict[str, NDArray[Any]]


def decides(dump: Dump, labels: NDArray[np.int64] | None, settings: Planes) -> dict[str, Any]:
    """What every point depends on beside its own layer: inputs, labels, number of rows, settings but the unit."""
    source = {"rows": dump.rows, "inputs": _digest(dump.inputs), "labels": _digest(labels)}
    return identity(
        "ib-analyze",
        source,
        settings={key: value for key, value in asdict(settings).items() if key != "units"},
    )


def measured(place: LayerDump, common: Shared, settings: Planes, work: Work | None) -> Point:
    """The point of a layer, from the folder where one of these very activations is there, and kept there if not."""
    if work is None:
        return measure(place, common, settings)
    unit = f"{place.tensor}-{content(place)[:24]}"
    if work.has(unit):
        source, _ = work.load(unit)
        with source:
            return _point(place, {name: source.tensor(name).numpy() for name in source.names()})
    point = measure(place, common, settings)
    work.save(unit, {name: torch.from_numpy(array) for name, array in _arrays(point).items()}, {})
    return point


def write(
    dump: Dump, points: Sequence[Point], chosen: range, shard: Shard, *, told: dict[str, Any], place: tuple[str, bool]
) -> dict[str, Any] | None:  # fmt: skip
    """Write the points of the dump's places `chosen` as a part; place: where to, and whether it may replace a file."""
    arrays: Arrays = {}
    for index, point in zip(chosen, points, strict=True):
        own = {**_arrays(point), "content": _hash(dump.places[index])}
        arrays |= {f"{index}.{name}": array for name, array in own.items()}
    told = {**told, "places": _names(dump)}
    return array_parts.write(place[0], KIND, shard, identity=told, arrays=arrays, force=place[1])


def read(
    paths: Sequence[str],
    dump: Dump,
    told: dict[str, Any],
    advance: Callable[[int], None] = lambda count: None,
) -> list[Point]:
    """The points of all parts. Raises BnError (exit 3) where a part is missing or was made of other activations."""
    arrays: Arrays = {}
    for part in array_parts.read(paths, KIND, {**told, "places": _names(dump)}):
        arrays |= part
    points = []
    for index, place in enumerate(dump.places):
        prefix = f"{index}."
        own = {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}
        if "content" not in own or not np.array_equal(own.pop("content"), _hash(place)):
            raise bad_input(
                f"{place.tensor} is not in the parts as it is in the dump", "make the parts again"
            )
        points.append(_point(place, own))
        advance(1)
    return points


def content(place: LayerDump) -> str:
    """sha256 of a layer's activations as stored."""
    return hashlib.sha256(place.artifact.part(place.tensor)).hexdigest()


def _hash(place: LayerDump) -> NDArray[np.uint8]:
    return np.frombuffer(bytes.fromhex(content(place)), np.uint8)


def _names(dump: Dump) -> str:
    return hashlib.sha256("\0".join(place.tensor for place in dump.places).encode()).hexdigest()


def _digest(array: NDArray[Any] | None) -> str | None:
    return None if array is None else hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _arrays(point: Point) -> Arrays:
    """A point as arrays; what it lacks is left out."""
    arrays: Arrays = {"x": point.x, "slack": point.slack, "loss": point.loss,
                      "scalars": np.array([point.level, point.effective])}  # fmt: skip
    if point.y is not None:
        arrays["y"] = point.y
    if point.within is not None:
        arrays["within"] = point.within
    return arrays


def _point(place: LayerDump, arrays: Arrays) -> Point:
    try:
        level, effective = arrays["scalars"].tolist()
        return Point(
            place.epoch, place.layer, arrays["x"], arrays.get("y"), arrays["slack"], arrays["loss"], level, effective,
            arrays.get("within"),
        )  # fmt: skip
    except (KeyError, ValueError):
        raise bad_input(f"what was kept of {place.tensor} is not whole", "make it again") from None
