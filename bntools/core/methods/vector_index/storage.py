"""The artifact of a vector index: which tensors it has, written and read back checked (bntools-index(5))."""

from __future__ import annotations

import mmap
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.core.artifact.reader import Artifact
from bntools.core.artifact.writer import Writer
from bntools.core.errors import BnError, bad_input
from bntools.core.methods.vector_index.codes import Code, ProductCode, Tensors, plain_from
from bntools.core.methods.vector_index.index import METRICS, Cells, Graph, Second, VectorIndex
from bntools.kernels.vectors.allocation import Groups
from bntools.kernels.vectors.product import Codebook

KIND = "vector-index"
FORMATS = (1, 2)
"""Version 2 has segments, deleted rows or a graph; an index without them is written as version 1."""
SECOND, SEGMENT, GRAPH = "second.", "segment.", "graph."
CODES = ("vq", "bits", "lvq8", "lvq4", "lvq4x8", "f16", "f32")
"""Names of codes; the first two are stored alike."""
_OWN = (
    "codes",
    "factor",
    "low",
    "step",
    "residual",
    "cell",
    "norm2",
    "ids",
    "deleted",
    "neighbours",
    "entry",
    "scale",
)
"""Last parts of the names of what each segment has for itself; maps, means and words are of all."""
_WHOLE = {
    "cell": ("U8",),
    "deleted": ("U8",),
    "factor": ("U8",),
    "residual": ("U8",),
    "ids": ("I64", "I32", "U32", "U64"),
    "groups.order": ("I64",),
    "groups.start": ("I64",),
    "graph.neighbours": ("I32",),
    "graph.entry": ("I32",),
    "codes": ("U8", "F16", "F32"),
    "low": ("F16",),
    "step": ("F16",),
}
_STORED = {"uint8": "U8", "int32": "I32", "int64": "I64", "uint32": "U32", "uint64": "U64", "float16": "F16",
           "float32": "F32"}  # fmt: skip
_NUMPY = {stored: np.dtype(name) for name, stored in _STORED.items()}


def write(index: VectorIndex, out: Writer) -> None:
    """Add the tensors of an index and its facts to a writer of kind `vector-index`; mapped ones pass through."""
    for name, array in tensors(index).items():
        plain = np.ascontiguousarray(array)
        out.add_raw(name, _STORED[plain.dtype.name], plain.shape, plain.reshape(-1).view(np.uint8).data)
    newer = any(part.dead is not None or part.graph is not None for part in index.parts) or index.segments
    out.describe("index", {"version": FORMATS[bool(newer)], "metric": index.metric, **index.facts})


def tensors(index: VectorIndex) -> Tensors:
    """What a file holds, by name."""
    result = _tensors(index)
    for number, part in enumerate(index.segments, 1):
        own = _tensors(part)
        result |= {f"{SEGMENT}{number}.{name}": array for name, array in own.items() if _is_own(name)}
    return result


def _is_own(name: str) -> bool:
    return name.rpartition(".")[2] in _OWN


def _tensors(part: VectorIndex) -> Tensors:
    result: Tensors = {"map.queries": part.query_map}
    if part.base_map is not part.query_map:
        result["map.base"] = part.base_map
    result |= {"mean": part.mean, **part.code.tensors()}
    if part.cells is not None:
        result |= {"centroids": part.cells.centroids, "cell": part.cells.cell}
    if part.second is not None:
        result |= {SECOND + name: array for name, array in part.second.code.tensors().items()}
        result[SECOND + "mean"] = part.second.mean
    if part.graph is not None:
        graph = part.graph
        result |= {
            "graph.neighbours": graph.neighbours,
            "graph.entry": graph.entry,
            "graph.scale": graph.scale,
        }
    rest = {"norm2": part.norm2, "ids": part.names, "deleted": part.dead}
    return result | {name: array for name, array in rest.items() if array is not None}


def read(source: Artifact) -> VectorIndex:
    """The index in an artifact, its tensors mapped, not read: what a search does not touch is never in memory.

    Raises BnError (exit 3) for another kind, another version, tensors that do not fit. The file must keep its length
    while the index is in use; replacing it by another is safe.
    """
    if source.kind != KIND:
        raise bad_input(f"{source.label} holds {source.kind}, not a {KIND}", "bntools vec-index makes one")
    facts = source.json("bntools.index", dict)
    version = facts.pop("version", None)
    if version not in FORMATS:
        raise bad_input(f"{source.label}: index version {version}, known is {FORMATS[-1]}", "update bntools")
    odd = [name for name in source.names() if source.entries[name].dtype not in _types(name)]
    if odd:
        raise bad_input(f"{source.label}: damaged index: {odd[0]} is {source.entries[odd[0]].dtype}")
    held = _mapped(source)
    endless = [n for n, a in held.items() if _checked(n, a) and not np.isfinite(a).all()]
    if endless:
        raise bad_input(f"{source.label}: damaged index: {endless[0]} holds numbers that are not finite")
    try:
        return _assemble_parts(held, facts)
    except BnError:
        raise
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise bad_input(f"{source.label}: damaged index: {str(error)[:100]}") from None


def _mapped(source: Artifact) -> Tensors:
    """All tensors on a map of the file; one that lies askew in it is copied."""
    whole = mmap.mmap(source.fd, 0, access=mmap.ACCESS_READ)
    result: Tensors = {}
    for name in source.names():
        entry = source.entries[name]
        dtype = _NUMPY[entry.dtype]
        array = np.ndarray(entry.shape, dtype, whole, source.header.size + entry.start)
        result[name] = array if array.flags.aligned else array.copy()
    return result


def _checked(name: str, array: NDArray[Any]) -> bool:
    """Whether to look for NaN at once: in all but codes as long as the vectors, which the search looks at."""
    return array.dtype.kind == "f" and not name.endswith("codes")


def _types(name: str) -> tuple[str, ...]:
    """Stored types that a tensor of an index may have."""
    if name.startswith(SEGMENT):
        name = name.removeprefix(SEGMENT).partition(".")[2]
    return _WHOLE.get(name.removeprefix(SECOND), ("F32",))


def _assemble_parts(held: Tensors, facts: dict[str, Any]) -> VectorIndex:
    """The first part and its segments; raises KeyError or ValueError where they do not fit."""
    first = {name: array for name, array in held.items() if not name.startswith(SEGMENT)}
    shared = {name: array for name, array in first.items() if not _is_own(name)}
    metric = facts.pop("metric")
    numbers = sorted({int(n.split(".")[1]) for n in held if n.startswith(SEGMENT)})
    _check(numbers == list(range(1, len(numbers) + 1)), "a segment is missing")
    segments = []
    for number in numbers:
        start = f"{SEGMENT}{number}."
        own = {n.removeprefix(start): a for n, a in held.items() if n.startswith(start)}
        segments.append(_assemble({**shared, **own}, metric, facts))
    index = replace(_assemble(first, metric, facts), segments=tuple(segments))
    _check(
        all((p.second is None) == (index.second is None) for p in segments), "a segment without second code"
    )
    _check(len(index) > 0, "no vectors")
    return index


def _assemble(held: Tensors, metric: str, facts: dict[str, Any]) -> VectorIndex:
    """One part of tensors by name."""
    _check(metric in METRICS, f"metric {metric}")
    query_map = held["map.queries"]
    base_map = held.get("map.base", query_map)
    width, dims = query_map.shape
    _check(
        base_map.shape == (width, dims) and held["mean"].shape == (dims,), "maps and mean of unequal shape"
    )
    code = _code(held, facts["code"], dims)
    count = len(code)
    cells = None
    if "centroids" in held:
        cells = Cells(held["centroids"], held["cell"])
        _check(cells.centroids.ndim == 2 and cells.centroids.shape[1] == dims, "centroids of another width")
        _check(cells.cell.shape == (count,), "one cell a row")
        _check(not count or int(cells.cell.max()) < len(cells.centroids), "a cell without centroid")
    second = None
    if SECOND + "codes" in held:
        own = {n.removeprefix(SECOND): a for n, a in held.items() if n.startswith(SECOND)}
        second = Second(_code(own, facts["second"], width), own["mean"])
        _check(len(second.code) == count and second.mean.shape == (width,), "second code of another size")
    for name, length in (("norm2", count), ("ids", count), ("deleted", -(-count // 8))):
        _check(name not in held or held[name].shape == (length,), f"{name}: one a row")
    _check(("norm2" in held) == (metric == "l2"), "norms are there for l2 alone")
    names = held.get("ids")
    return VectorIndex(
        metric, query_map, base_map, held["mean"], code, cells, held.get("norm2"), second,
        None if names is None else names.astype(np.int64, copy=False), facts, _graph(held, code, cells),
        held.get("deleted"),
    )  # fmt: skip


def _graph(held: Tensors, code: Code, cells: Cells | None) -> Graph | None:
    if GRAPH + "neighbours" not in held:
        return None
    graph = Graph(held[GRAPH + "neighbours"], held[GRAPH + "entry"], held[GRAPH + "scale"])
    _check(isinstance(code, ProductCode), "a graph over plain codes")
    _check(graph.neighbours.ndim == 2 and len(graph.neighbours) == len(code), "one list of neighbours a row")
    _check(graph.entry.shape == (1 if cells is None else len(cells.centroids),), "one entry a cell")
    _check(graph.scale.shape == held["mean"].shape, "scales of another width")
    for places in (graph.neighbours, graph.entry):
        _check(int(places.min()) >= -1 and int(places.max()) < len(code), "a neighbour that is not there")
    return graph


def _code(held: Tensors, name: str, width: int) -> Code:
    codes = held["codes"]
    _check(
        codes.dtype == {"f16": np.float16, "f32": np.float32}.get(name, np.uint8), f"codes of {codes.dtype}"
    )
    if name in ("vq", "bits"):
        groups = Groups(held["groups.order"], held["groups.start"])
        _check_groups(groups, held["words"], width)
        _check(codes.ndim == 3 and codes.shape[1:] == (len(groups.start) - 1, 32), "codes of another shape")
        one_each = held["factor"].ndim == 1 and len(codes) == -(-len(held["factor"]) // 32)
        _check(one_each and held["factor.grid"].shape == (2,), "one factor a vector")
        return ProductCode(codes, Codebook(groups, held["words"]), held["factor"], held["factor.grid"], width)
    _check(name in CODES, f"unknown code {name}")
    wide = -(-width // 2) if name in ("lvq4", "lvq4x8") else width
    _check(codes.ndim == 2 and codes.shape[1] == wide, "codes of another width")
    code = plain_from(held, name, width)
    if name not in ("f16", "f32"):
        _check((len(codes),) == held["low"].shape == held["step"].shape, "one grid a vector")
    if name == "lvq4x8":
        _check(held["residual"].shape == (len(codes), width), "residual of another shape")
    return code


def _check_groups(groups: Groups, words: NDArray[np.float32], width: int) -> None:
    """The compiled loops trust these."""
    order, start = groups
    _check(order.ndim == start.ndim == 1, "groups are no lists")
    _check(words.shape == (len(order), 256), "words of another shape")
    _check(bool(((order >= 0) & (order < width)).all()), "a coordinate out of range")
    _check(len(start) >= 2 and start[0] == 0 and start[-1] == len(order), "groups do not cover the words")
    _check(bool((np.diff(start) > 0).all()), "an empty group")


def _check(sound: bool, what: str) -> None:
    if not sound:
        raise ValueError(what)
