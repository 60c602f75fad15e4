"""The artifact of kind cbm: writing a bottleneck and reading it back, weights in compressed rows."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.core.artifact.reader import Artifact
from bntools.core.artifact.writer import Writer
from bntools.core.errors import bad_input
from bntools.core.methods.cbm.bottleneck import ACTIVATIONS, Bottleneck, Floats

KIND = "cbm"
_TYPES = {"F32": np.float32, "I64": np.int64, "I32": np.int32, "F64": np.float64, "F16": np.float16,
          "U8": np.uint8, "I8": np.int8, "BOOL": np.bool_, "I16": np.int16, "U16": np.uint16}  # fmt: skip
_CODES = {np.dtype(np.float32): "F32", np.dtype(np.int64): "I64", np.dtype(np.int32): "I32"}
_MOST_CLASSES = 1 << 20
_PATH = re.compile(r"path\.\d+(\.\d+)?\.values")
_PLAIN = ("vectors", "offsets", "mean", "std", "bias", "class_mean", "scale", "levels")


def array(source: Artifact, name: str) -> NDArray[Any]:
    """One tensor as a numpy array; bfloat16 widens to float32. Raises BnError (exit 3) for other types."""
    if name not in source.entries:
        raise bad_input(f"{source.label} has no tensor {name}", "bntools info --tensors lists them")
    entry = source.entries[name]
    data = source.raw(name)
    if entry.dtype == "BF16":
        wide = np.frombuffer(data, np.uint16).astype(np.uint32) << 16
        return wide.view(np.float32).reshape(entry.shape)
    if entry.dtype not in _TYPES:
        raise bad_input(f"{source.label}: tensor {name} has type {entry.dtype}", "floats or whole numbers")
    return np.frombuffer(data, _TYPES[entry.dtype]).reshape(entry.shape)


def floats(source: Artifact, name: str) -> NDArray[Any]:
    """One tensor of floats; BnError (exit 3) for another type."""
    values = array(source, name)
    if values.dtype.kind != "f":
        raise bad_input(f"{source.label}: tensor {name} has type {source.entries[name].dtype}, not floats")
    return values


def write(out: Writer, model: Bottleneck) -> None:
    """Add a bottleneck's tensors and metadata to an open writer of kind `cbm`."""
    for name in _PLAIN:
        add(out, f"concept.{name}" if name != "bias" else "head.bias", getattr(model, name))
    if model.theta is not None:
        add(out, "concept.theta", model.theta)
    add(out, "class.label", model.labels)
    add(out, "class.count", model.counts)
    _add_sparse(out, "head", model.weight)
    for nec, (weight, bias) in model.heads.items():
        _add_sparse(out, f"path.{nec}", weight)
        add(out, f"path.{nec}.bias", bias)
    extra = {} if model.residual is None else {"residual": model.residual}
    for name, (weight, bias) in {**extra, **{f"baseline.{k}": v for k, v in model.baselines.items()}}.items():
        add(out, f"{name}.weight", weight)
        add(out, f"{name}.bias", bias)
    out.files["concepts.txt"] = "\n".join(" ".join(n.splitlines()) for n in model.names).encode()
    out.files["classes.txt"] = "\n".join(" ".join(n.splitlines()) for n in model.classes).encode()
    facts = {**model.facts, "activation": model.activation, "normalize": model.normalize, "nec": model.nec}
    out.describe(KIND, facts)


def read(source: Artifact) -> Bottleneck:
    """The bottleneck of an artifact. Raises BnError (exit 3) where it is of another kind or does not fit together."""
    if source.kind != KIND:
        raise bad_input(f"{source.label} is of kind {source.kind}, not {KIND}", "bntools cbm-build makes one")
    facts = source.json(f"bntools.{KIND}", dict)
    values = {name: floats(source, f"concept.{name}") for name in _PLAIN if name != "bias"}
    if not values["vectors"].ndim:
        raise bad_input(f"{source.label}: concept.vectors is one number", "build it again")
    names, classes = lines(source, "concepts.txt"), lines(source, "classes.txt")
    columns, bias = len(values["vectors"]), floats(source, "head.bias")
    stems = sorted(name[: -len(".values")] for name in source.names() if _PATH.fullmatch(name))
    heads = {
        s.removeprefix("path."): (_sparse(source, s, columns), floats(source, f"{s}.bias")) for s in stems
    }
    maps = {
        n.removesuffix(".weight"): (floats(source, n), floats(source, n.removesuffix("weight") + "bias"))
        for n in source.names() if n.endswith(".weight")
    }  # fmt: skip
    model = Bottleneck(
        **values, bias=bias, weight=_sparse(source, "head", columns), names=names, classes=classes,
        labels=array(source, "class.label"), counts=array(source, "class.count"), facts=facts,
        activation=str(facts.get("activation", "linear")), normalize=bool(facts.get("normalize")),
        theta=floats(source, "concept.theta") if "concept.theta" in source.entries else None,
        residual=maps.pop("residual", None), heads=dict(sorted(heads.items(), key=lambda h: float(h[0]))),
        baselines={name.removeprefix("baseline."): value for name, value in maps.items()},
    )  # fmt: skip
    _check(model, source.label)
    return model


def _check(model: Bottleneck, label: str) -> None:
    shape, classes = model.vectors.shape, model.bias.size
    if len(shape) != 2 or model.bias.ndim != 1:
        raise bad_input(f"{label}: concept.vectors {list(shape)} are no rows", "build it again")
    (count, width), head = shape, ((classes, shape[0]), (classes,))
    per_concept = (model.offsets, model.mean, model.std, model.scale)
    fits = model.weight.shape == head[0] and model.counts.shape == (classes,)
    fits = fits and all((w.shape, b.shape) == head for w, b in model.heads.values())
    maps = [*model.baselines.values(), *([] if model.residual is None else [model.residual])]
    fits = fits and all((w.shape, b.shape) == ((classes, width), (classes,)) for w, b in maps)
    fits = (
        fits and all(v.shape == (count,) for v in per_concept) and model.class_mean.shape == (classes, count)
    )
    fits = fits and model.levels.shape == (count, 2)
    fits = fits and len(model.names) == count and len(model.classes) == classes == len(model.labels)
    fits = fits and (model.theta is None or model.theta.shape == (count,))
    if not fits or not _known_activation(model.activation):
        raise bad_input(f"{label}: its tensors do not fit together", "was it edited by hand? build it again")


def _known_activation(text: str) -> bool:
    name, colon, number = text.partition(":")
    return (
        name in ACTIVATIONS
        and (name == "topk") == bool(colon)
        and (not colon or (number.isdecimal() and int(number) > 0))
    )


def lines(source: Artifact, name: str) -> list[str]:
    """The lines of a side file. Raises BnError (exit 3) where it is not there."""
    if name not in source.files:
        raise bad_input(f"{source.label} has no file {name}", "bntools cbm-build writes it")
    text = source.files[name].decode("utf-8", "replace")
    return text.split("\n") if text else []


def add(out: Writer, name: str, values: NDArray[Any]) -> None:
    """One array as a tensor of an open writer, float32 where it is neither that nor whole numbers."""
    values = np.ascontiguousarray(values)
    if values.dtype not in _CODES:
        values = values.astype(np.float32)
    out.add_raw(name, _CODES[values.dtype], values.shape, values.tobytes())


def _add_sparse(out: Writer, name: str, weight: Floats) -> None:
    """Compressed sparse rows: values [nnz], columns [nnz], and where each row starts, [C + 1]."""
    rows, columns = np.nonzero(weight)
    add(out, f"{name}.values", weight[rows, columns])
    add(out, f"{name}.columns", columns.astype(np.int32))
    add(out, f"{name}.rows", np.searchsorted(rows, np.arange(len(weight) + 1)).astype(np.int32))


def _sparse(source: Artifact, name: str, columns: int) -> Floats:
    values = floats(source, f"{name}.values")
    indices, starts = (array(source, f"{name}.{part}") for part in ("columns", "rows"))
    good = values.ndim == indices.ndim == starts.ndim == 1 and indices.dtype.kind == starts.dtype.kind == "i"
    good = (
        good
        and 1 < len(starts) <= _MOST_CLASSES
        and starts[0] == 0
        and (np.diff(starts) >= 0).all()
        and starts[-1] == len(values)
    )
    good = (
        good
        and len(indices) == len(values)
        and (not len(indices) or 0 <= indices.min() <= indices.max() < columns)
    )
    if not good:
        raise bad_input(f"{source.label}: the rows of {name} do not fit together", "build it again")
    weight = np.zeros((len(starts) - 1, columns), np.float32)
    weight[np.repeat(np.arange(len(starts) - 1), np.diff(starts)), indices] = values
    return weight
