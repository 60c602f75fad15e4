"""The artifact of a vector index: which tensors it has, written and read back checked (bntools-index(5))."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bntools.core.artifact.reader import Artifact
from bntools.core.artifact.writer import Writer
from bntools.core.errors import BnError, bad_input
from bntools.core.methods.vector_index.codes import AdaptiveCode, Code, HalfCode, ProductCode, Tensors
from bntools.core.methods.vector_index.index import METRICS, Cells, Second, VectorIndex
from bntools.kernels.vectors.allocation import Groups
from bntools.kernels.vectors.locally_adaptive import Adaptive
from bntools.kernels.vectors.product import Codebook

KIND = "vector-index"
FORMAT = 1
SECOND = "second."
CODES = ("vq", "bits", "lvq8", "lvq4", "lvq4x8", "f16", "f32")

"""Names of codes; the first two are stored alike."""
_WHOLE = {
    "cell": ("U8",),
    "ids": ("I64", "I32", "U32", "U64"),
    "groups.order": ("I64",),
    "groups.start": ("I64",),
}


def write(index: VectorIndex, out: Writer) -> None:
    """Add the tensors of an index and its facts to a writer of kind `vector-index`."""
    for name, array in tensors(index).items():
        out.add(name, torch.from_numpy(np.ascontiguousarray(array)))
    out.describe("index", {"version": FORMAT, "metric": index.metric, **index.facts})


def tensors(index: VectorIndex) -> Tensors:
    """What a file holds, by name."""
    result: Tensors = {"map.queries": index.query_map}
    if index.base_map is not index.query_map:
        result["map.base"] = index.base_map
    result |= {"mean": index.mean, **index.code.tensors()}
    if index.cells is not None:
        result |= {"centroids": index.cells.centroids, "cell": index.cells.cell}
    if index.norm2 is not None:
        result["norm2"] = index.norm2
    if index.second is not None:
        result |= {SECOND + name: array for name, array in index.second.code.tensors().items()}
        result[SECOND + "mean"] = index.second.mean
    if index.names is not None:
        result["ids"] = index.names
    return result


def read(source: Artifact) -> VectorIndex:
    """The index in an artifact. Raises BnError (exit 3) for another kind, another version, tensors that do not fit."""
    if source.kind != KIND:
        raise bad_input(f"{source.label} holds {source.kind}, not a {KIND}", "bntools vec-index makes one")
    facts = source.json("bntools.index", dict)
    version = facts.pop("version", None)
    if version != FORMAT:
        raise bad_input(f"{source.label}: index version {version}, known is {FORMAT}", "update bntools")
    odd = [name for name in source.names() if source.entries[name].dtype not in _types(name)]
    if odd:
        raise bad_input(f"{source.label}: damaged index: {odd[0]} is {source.entries[odd[0]].dtype}")
    held = {name: source.tensor(name).numpy() for name in source.names()}
    endless = [
        name for name, array in held.items() if array.dtype.kind == "f" and not np.isfinite(array).all()
    ]
    if endless:
        raise bad_input(f"{source.label}: damaged index: {endless[0]} holds numbers that are not finite")
    try:
        index = _assemble(held, facts)
    except BnError:
        raise
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise bad_input(f"{source.label}: damaged index: {str(error)[:100]}") from None
    return index


def _types(name: str) -> tuple[str, ...]:
    """Stored types that a tensor of an index may have."""
    last = name.removeprefix(SECOND)
    if last in ("factor", "residual"):
        return ("U8",)
    if last == "codes":
        return ("U8", "F16", "F32")
    if last in ("low", "step"):
        return ("F16",)
    return _WHOLE.get(last, ("F32",))


def _assemble(held: Tensors, facts: dict[str, Any]) -> VectorIndex:
    """An index of tensors by name; raises KeyError or ValueError where they do not fit."""
    metric = facts.pop("metric")
    _check(metric in METRICS, f"metric {metric}")
    query_map = held["map.queries"]
    base_map = held.get("map.base", query_map)
    width, dims = query_map.shape
    _check(
        base_map.shape == (width, dims) and held["mean"].shape == (dims,), "maps and mean of unequal shape"
    )
    code = _code(held, facts["code"], dims)
    count = len(code)
    _check(count > 0, "no vectors")
    cells = None
    if "cell" in held:
        cells = Cells(held["centroids"], held["cell"])
        _check(cells.centroids.ndim == 2 and cells.centroids.shape[1] == dims, "centroids of another width")
        _check(cells.cell.shape == (count,), "one cell a row")
        known = 0 <= int(cells.cell.min()) <= int(cells.cell.max()) < len(cells.centroids)
        _check(known, "a cell without centroid")
    second = None
    if SECOND + "codes" in held:
        own = {n.removeprefix(SECOND): a for n, a in held.items() if n.startswith(SECOND)}
        second = Second(_code(own, facts["second"], width), own["mean"])
        _check(len(second.code) == count and second.mean.shape == (width,), "second code of another size")
    for name in ("norm2", "ids"):
        _check(name not in held or held[name].shape == (count,), f"{name}: one a row")
    return VectorIndex(
        metric,
        query_map,
        base_map,
        held["mean"],
        code,
        cells,
        held.get("norm2"),
        second,
        held.get("ids"),
        facts,
    )


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
    if name in ("f16", "f32"):
        _check(codes.ndim == 2 and codes.shape[1] == width, "codes of another width")
        return HalfCode(codes)
    _check(name in CODES, f"unknown code {name}")
    bits = 8 if name == "lvq8" else 4
    _check(
        codes.ndim == 2 and codes.shape[1] == (width if bits == 8 else -(-width // 2)),
        "codes of another width",
    )
    _check((len(codes),) == held["low"].shape == held["step"].shape, "one grid a vector")
    residual = held["residual"] if name == "lvq4x8" else None
    _check(residual is None or residual.shape == (len(codes), width), "residual of another shape")
    return AdaptiveCode(Adaptive(codes, held["low"], held["step"]), bits, width, residual)


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
