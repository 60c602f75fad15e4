"""A sparse dictionary as an artifact: encode rows by its encoder or by pursuit, decode, read and write it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bntools.core.artifact import fields
from bntools.core.artifact.dtypes import FLOATS
from bntools.core.artifact.reader import Artifact
from bntools.core.artifact.writer import Writer
from bntools.core.errors import bad_input
from bntools.core.system.bfloat16 import gains
from bntools.kernels.sparse import loops, pursuit, selection
from bntools.kernels.sparse.selection import SparseEncoder, Support
from bntools.kernels.sparse.threads import spread

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

KIND, COUNT = "sae", "latent.count"
_TENSORS = {"enc.weight": "E", "enc.bias": "be", "dec.weight": "D", "dec.bias": "bd", "norm.mean": "mean"}
_CHUNK = 2048
"""Rows encoded at once: scores of 16,384 latents take 64 MiB."""
THRESHOLDED = ("batchtopk", "matryoshka", "jumprelu")


@dataclass(frozen=True)
class Inference:
    """How rows are encoded. candidates: of pursuit, 0 for the encoder alone. k: latents a row at most (pursuit).

    budget: share of a row's energy at which pursuit stops. nonnegative: no coefficient below zero.
    """

    candidates: int = 0
    k: int = 32
    budget: float = 0.0
    nonnegative: bool = True

    @property
    def name(self) -> str:
        return "pursuit" if self.candidates else "encoder"

    def facts(self) -> dict[str, Any]:
        if not self.candidates:
            return {"kind": "encoder"}
        return {
            "kind": "pursuit", "candidates": self.candidates, "k": self.k, "budget": self.budget,
            "nonnegative": self.nonnegative,
        }  # fmt: skip


@dataclass
class Dictionary:
    """Rows x = mean + scale (bd + D^T z), codes z by method; E [m, d], be [m], D [m, d] of unit rows, bd, mean [d].

    theta [m]: thresholds where the method has them. gate: biases and log scales [2, m] of a gated encoder. count [m]:
    rows of the training data that used each latent. facts: {method, k, m, d, site, layer, sha256, ...}.
    """

    E: Floats
    be: Floats
    D: Floats
    bd: Floats
    mean: Floats
    scale: float
    facts: dict[str, Any]
    theta: Floats | None = None
    gate: Floats | None = None
    count: NDArray[np.int64] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    label: str = "the dictionary"

    @property
    def method(self) -> str:
        return str(self.facts.get("method", "topk"))

    @property
    def k(self) -> int:
        return int(self.facts["k"])

    @cached_property
    def inference(self) -> Inference:
        """The way to encode that the artifact names."""
        value = self.facts.get("inference", {})
        if value.get("kind") != "pursuit":
            return Inference(0, self.k)
        return Inference(
            int(value["candidates"]), int(value.get("k", self.k)), float(value.get("budget", 0)),
            bool(value.get("nonnegative", True)),
        )  # fmt: skip

    @cached_property
    def _half(self) -> torch.Tensor | None:
        return torch.from_numpy(self.E).bfloat16() if gains("cpu") else None

    @cached_property
    def gram(self) -> Floats | None:
        """D D^T where it is small enough to be held."""
        return self.D @ self.D.T if len(self.D) <= pursuit.LARGEST_GRAM else None

    def normalise(self, x: Floats) -> Floats:
        return (x - self.mean) * np.float32(1 / self.scale)

    def encoder(self) -> SparseEncoder:
        """Scores in bfloat16 where that is faster, except where they are held against 0, near which it may not tell."""
        half = None if self.method in ("relu", "gated") else self._half
        return SparseEncoder(self.E, self.be if self.gate is None else self.gate[0], half)

    def support(self, x: Floats, threads: int = 1) -> Support:
        """What the encoder makes of normalised rows."""
        seen = x - self.bd
        if self.method == "topk":
            latents, values = selection.top(self.encoder(), seen, self.k, threads)
            return selection.only(selection.full(latents, values), values.reshape(-1) > 0)
        theta = self.theta if self.theta is not None else np.zeros(len(self.E), np.float32)
        beyond = selection.beyond(self.encoder(), seen, theta, threads)
        return beyond if self.gate is None else gated(beyond, self.gate, self.be)

    def pursue(self, x: Floats, inference: Inference, threads: int = 1) -> Support:
        """Codes of normalised rows by pursuit among the encoder's best candidates."""
        seen = x - self.bd
        latents, counts = selection.candidates(self.encoder(), seen, inference.candidates, threads)
        rules = pursuit.PursuitRules(inference.k, inference.budget, inference.nonnegative)
        chosen, values = pursuit.pursue(self.D, seen, latents, counts, rules, gram=self.gram, threads=threads)
        full = selection.full(chosen, values)
        return selection.only(full, full.values != 0)

    def encode(self, x: Floats, inference: Inference | None = None, threads: int = 1) -> Support:
        """Codes of rows as they are stored; a row's codes do not depend on the rows beside it.

        inference: the artifact's own unless said. Rows [N, d] of any number; memory is that of 2,048.
        """
        how = inference or self.inference
        parts = []
        for start in range(0, len(x), _CHUNK):
            rows = np.zeros(
                (_CHUNK, x.shape[1]), np.float32
            )  # one shape of product: no sum depends on how many come
            part = x[start : start + _CHUNK]
            rows[: len(part)] = self.normalise(part)
            support = self.pursue(rows, how, threads) if how.candidates else self.support(rows, threads)
            parts.append(_first(support, len(part)))
        return join(parts)

    def decode(self, codes: Support, threads: int = 1) -> Floats:
        """Rows from codes, in the units of the input."""
        rows = self.decode_normalised(codes, threads)
        rows *= np.float32(self.scale)
        rows += self.mean
        return rows

    def decode_normalised(self, codes: Support, threads: int = 1) -> Floats:
        out = np.empty((len(codes.indptr) - 1, self.D.shape[1]), np.float32)
        D, bd = self.D, self.bd
        indptr, latents, values = codes
        spread(lambda a, b: loops.decode(D, bd, indptr, latents, values, a, b, out), len(out), threads)
        return out

    def codes_width(self, inference: Inference) -> int:
        """Latents a row that room is kept for: k where no row has more, 4 k where their number varies."""
        fixed = inference.candidates or self.method == "topk"
        return min(inference.k if fixed else 4 * self.k, len(self.D))

    def with_inference(self, inference: Inference) -> Dictionary:
        return replace(self, facts={**self.facts, "inference": inference.facts()})


def gated(support: Support, gate: Floats, be: Floats) -> Support:
    """Codes of a gated encoder from the positive scores of its gate: relu(e^r q + be) where q + b_m > 0."""
    j = support.latents
    values = np.maximum(np.exp(gate[1][j]) * (support.values - gate[0][j]) + be[j], 0).astype(np.float32)
    return selection.only(Support(support.indptr, j, values), values > 0)


def _first(support: Support, rows: int) -> Support:
    end = support.indptr[rows]
    return Support(support.indptr[: rows + 1], support.latents[:end], support.values[:end])


def join(parts: list[Support]) -> Support:
    """Rows one after the other."""
    if len(parts) == 1:
        return parts[0]
    ends = np.cumsum([0, *(len(p.latents) for p in parts)])
    indptr = np.concatenate([[0], *(p.indptr[1:] + end for p, end in zip(parts, ends, strict=False))])
    return Support(
        indptr.astype(np.int64), np.concatenate([np.empty(0, np.int32), *(p.latents for p in parts)]),
        np.concatenate([np.empty(0, np.float32), *(p.values for p in parts)]),
    )  # fmt: skip


def write(out: Writer, dictionary: Dictionary) -> None:
    """Put a dictionary into a writer of kind `sae`."""
    out.describe("sae", dictionary.facts)
    for name, attribute in _TENSORS.items():
        out.add(name, torch.from_numpy(np.ascontiguousarray(getattr(dictionary, attribute))))
    out.add("norm.scale", torch.tensor([dictionary.scale], dtype=torch.float32))
    for name, array in (
        ("theta", dictionary.theta),
        ("gate", dictionary.gate),
        ("latent.count", dictionary.count),
    ):
        if array is not None:
            out.add(name, torch.from_numpy(np.ascontiguousarray(array)))


def read(source: Artifact) -> Dictionary:
    """The dictionary of an artifact of kind `sae`. Raises BnError (exit 3) where it is none, or damaged."""
    if source.kind != KIND:
        what = f"{source.label} is an artifact of kind {source.kind!r}, not a sparse dictionary"
        raise bad_input(what, "bntools sparse-code makes one")
    facts = source.json("bntools.sae", dict)
    entries = source.entries
    shape = entries["dec.weight"].shape if "dec.weight" in entries else ()
    m, d = shape if len(shape) == 2 else (0, 0)
    wanted = {"enc.weight": (m, d), "enc.bias": (m,), "dec.weight": (m, d), "dec.bias": (d,), "norm.mean": (d,),
              "norm.scale": (1,)}  # fmt: skip
    optional = {"theta": (m,), "gate": (2, m), "latent.count": (m,)}
    for name, shape in wanted.items():
        if name not in entries or entries[name].shape != shape or m < 2:
            raise bad_input(f"{source.label} holds no {name} {list(shape)}", "is it damaged?")
    for name, shape in optional.items():
        if name in entries and entries[name].shape != shape:
            raise bad_input(
                f"{source.label}: {name} has shape {list(entries[name].shape)}, not {list(shape)}"
            )
    k, method = facts.get("k"), facts.get("method")
    if (
        not isinstance(k, int)
        or not 1 <= k <= m
        or not isinstance(method, str)
        or not _inference_fits(facts, m)
    ):
        raise bad_input(f"{source.label}: metadata bntools.sae does not describe a dictionary")
    if any(
        entries[name].dtype not in FLOATS
        for name in (*wanted, *optional)
        if name in entries and name != COUNT
    ):
        raise bad_input(f"{source.label} holds tensors of whole numbers", "is it damaged?")
    arrays = {a: source.tensor(n).float().numpy() for n, a in _TENSORS.items()}
    theta, gate = (source.tensor(n).float().numpy() if n in entries else None for n in ("theta", "gate"))
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise bad_input(f"{source.label} holds numbers that are not finite")
    if (method in THRESHOLDED and theta is None) or (method == "gated" and gate is None):
        raise bad_input(f"{source.label}: a dictionary of method {method} lacks its thresholds")
    count = source.tensor("latent.count").numpy().astype(np.int64) if "latent.count" in entries else None
    scale = float(source.tensor("norm.scale")[0])
    extra = [array for array in (theta, gate) if array is not None]
    if not (scale > 0 and math.isfinite(1 / scale)) or not all(np.isfinite(array).all() for array in extra):
        raise bad_input(f"{source.label}: its scale or thresholds are no numbers that rows can be divided by")
    return Dictionary(**arrays, scale=scale, facts=facts, theta=theta, gate=gate, count=count,
                      history=source.history, label=source.label)  # fmt: skip


def _inference_fits(facts: dict[str, Any], m: int) -> bool:
    """Whether the way to encode that metadata name can be."""
    try:
        value = fields.mapping(facts.get("inference", {}))
        fields.whole(value.get("candidates", 1), 0, 1 << 20)
        fields.whole(value.get("k", 1), 0, m)
        fields.number(value.get("budget", 0))
        fields.flag(value.get("nonnegative", True))
    except ValueError:
        return False
    return True


def open_dictionary(opened: Any, label: str) -> Dictionary:
    """A dictionary from an opened input: our artifact, or a folder in SAELens' layout. BnError (exit 3) otherwise."""
    if isinstance(opened, Artifact):
        return read(opened)
    if isinstance(opened, Path) and opened.is_dir():
        from bntools.core.methods.saelens import read_folder

        return read_folder(opened)
    raise bad_input(f"{label} is not a sparse dictionary", "bntools sparse-code makes one")


def check_fits(dictionary: Dictionary, facts: dict[str, Any], width: int, label: str, force: bool) -> None:
    """Refuse rows of another width, model, layer or site than the dictionary was made for (exit 3)."""
    d = dictionary.D.shape[1]
    if width != d:
        hint = "rows of the layer that the dictionary was made for: bntools info tells which"
        raise bad_input(f"{label} has rows of {width} numbers, {dictionary.label} is for {d}", hint)
    for key in ("sha256", "layer", "site"):
        ours, theirs = dictionary.facts.get(key), facts.get(key)
        if ours is not None and theirs is not None and ours != theirs and not force:
            name = "model" if key == "sha256" else key
            shown = (str(ours)[:12], str(theirs)[:12])
            what = f"{dictionary.label} is for {name} {shown[0]}, {label} comes from {shown[1]}"
            raise bad_input(what, "--force uses them together all the same")
