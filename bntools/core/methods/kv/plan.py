"""The plan of a cache: what is coded how, as JSON beside its transforms and tables (artifact kind `kv-plan`)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bntools.core.artifact.reader import Artifact, open_path
from bntools.core.artifact.targets import STDOUT, check_target, publish, temporary_name, write_durably
from bntools.core.artifact.writer import Writer
from bntools.core.errors import bad_input, usage
from bntools.core.methods.kv.entropy_code import EntropyRows, LevelTables
from bntools.core.methods.kv.fixed_code import MOST, FixedRows
from bntools.core.methods.kv.layer import RowCoder
from bntools.core.methods.kv.metric import QueryMetric

KIND = "kv-plan"
VERSION = 1
METHODS = (
    "rate", "zipvl", "zipvl-evict", "scalekv", "kivi", "rotated", "h2o", "snapkv", "pyramidkv", "streaming",
)  # fmt: skip
_AGAIN = "make it again by bntools kv-compress"
_NEEDED = {
    "entropy": ("k.mean", "v.mean", "k.forward", "v.forward", "steps", "spread", "tables", "centres"),
    "fixed": (
        "k.mean",
        "v.mean",
        "k.forward",
        "v.forward",
        "widths",
        "scale",
        "levels",
        "limit",
        "sensitivity",
    ),
}


@dataclass(frozen=True)
class CachePlan:
    """facts: the JSON of a plan, `bntools.kv` its version; tensors: transforms and tables, none for baselines."""

    facts: dict[str, Any]
    tensors: dict[str, Tensor] = field(default_factory=dict)

    @property
    def method(self) -> str:
        return self.facts["method"]

    @property
    def code(self) -> str:
        return self.facts["code"]

    @property
    def planned(self) -> list[int]:
        """Layers whose cache is coded."""
        return [layer["index"] for layer in self.facts["layers"]]

    @property
    def sparse_prefill(self) -> bool:
        """Whether the prompt is read by attention among its important tokens alone."""
        return bool(self.facts.get("sparse_prefill"))

    def metric(self, at: int) -> QueryMetric:
        """Of the at-th planned layer."""
        mean, forward = (
            torch.stack([self.tensors[f"{k}.{part}"][at] for k in "kv"]) for part in ("mean", "forward")
        )
        return QueryMetric.stored(mean, forward)

    def tables(self) -> LevelTables:
        return LevelTables(self.tensors["tables"].numpy(), self.tensors["centres"].numpy())

    def coder(self, at: int, tables: LevelTables | None = None) -> RowCoder:
        """Of the at-th planned layer."""
        part = {name: tensor[at] for name, tensor in self.tensors.items() if name in ("steps", "spread", "widths",
                "scale", "limit", "sensitivity")}  # fmt: skip
        if self.code == "entropy":
            steps = part["steps"].tolist()
            return EntropyRows(self.metric(at), (steps[0], steps[1]), part["spread"].float().numpy(),
                               tables or self.tables(), self.facts["gamma"] > 0)  # fmt: skip
        levels = tuple(self.tensors["levels"][bits, : 1 << bits].numpy() for bits in range(MOST + 1))
        weights = part["sensitivity"].tolist()
        return FixedRows(self.metric(at), part["widths"].numpy(), part["scale"].float().numpy(), levels,
                         part["limit"].numpy(), (weights[0], weights[1]), self.tensors["gains"].numpy())  # fmt: skip

    def coders(self) -> dict[int, RowCoder]:
        """By layer of the model."""
        tables = self.tables() if self.code == "entropy" else None
        return {layer: self.coder(at, tables) for at, layer in enumerate(self.planned)}


def describe_model(model: Any) -> dict[str, Any]:
    """What a plan or a stored cache must agree with: shape of the cache, rotary embedding, first weights."""
    config = model.config.get_text_config(decoder=True)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = getattr(config, "rope_parameters", None)
    facts = {"type": config.model_type, "layers": config.num_hidden_layers, "kv_heads": int(heads),
             "head_dim": int(width), "rope": json.loads(json.dumps(rope, default=str))}  # fmt: skip
    weight = model.get_input_embeddings().weight.detach().reshape(-1)[:4096]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    digest.update(weight.to("cpu", torch.bfloat16).view(torch.int16).numpy().astype("<i2").tobytes())
    return {**facts, "sha256": digest.hexdigest()}


def check_model(recorded: dict[str, Any], model: Any, what: str) -> None:
    """Raises BnError (exit 3) where a plan or cache is of another model."""
    here = describe_model(model)
    for name in ("type", "layers", "kv_heads", "head_dim", "rope"):
        if recorded.get(name) != here[name]:
            raise bad_input(
                f"{what} is of a model with {name} {recorded.get(name)}, this one has {here[name]}", _AGAIN
            )
    if recorded.get("sha256") != here["sha256"]:
        raise bad_input(f"{what} is of another model of the same shape", _AGAIN)


def read_plan(place: str | Path | Artifact) -> CachePlan:
    """A plan from its JSON, with the tensors beside it, or from its artifact. Raises BnError (exit 2 or 3)."""
    if isinstance(place, Artifact):
        return _from_artifact(place)
    path = Path(place)
    try:
        with path.open("rb") as file:
            first = file.read(1)
    except OSError as error:
        raise usage(f"cannot open {path}: {error.strerror}", "check the path") from None
    if first != b"{":
        with open_path(path) as artifact:
            return _from_artifact(artifact)
    try:
        facts = json.loads(path.read_bytes())
    except ValueError as error:
        raise bad_input(f"{path} is not valid JSON: {str(error)[:120]}") from None
    _check(facts, str(path))
    if facts["tables"] is None:
        return CachePlan(facts)
    beside = path.parent / facts["tables"]
    if not beside.is_file():
        raise bad_input(f"{path} names {facts['tables']}, which is not beside it", "copy both files")
    with open_path(beside) as artifact:
        return CachePlan(facts, _tensors(artifact, facts))


def _from_artifact(source: Artifact) -> CachePlan:
    if source.kind != KIND:
        raise bad_input(
            f"{source.label} is an artifact of kind {source.kind!r}, not a plan of a cache", _AGAIN
        )
    facts = source.json("bntools.kv", dict)
    _check(facts, source.label)
    return CachePlan(facts, _tensors(source, facts))


def _check(facts: dict[str, Any], label: str) -> None:
    if facts.get("bntools.kv") != VERSION:
        raise bad_input(f"{label} is no plan of a cache", _AGAIN)
    missing = [
        name
        for name in ("model", "method", "layers", "tables", "sink", "recent", "gamma")
        if name not in facts
    ]
    if missing or facts["method"] not in METHODS:
        raise bad_input(f"{label}: {missing[0] if missing else 'method'} is missing or unknown", _AGAIN)


def _tensors(source: Artifact, facts: dict[str, Any]) -> dict[str, Tensor]:
    needed = _NEEDED.get(facts.get("code", ""), ())
    missing = [name for name in needed if name not in source.entries]
    if missing:
        raise bad_input(f"tensor {missing[0]!r} is missing from {source.label}", _AGAIN)
    tensors = {name: source.tensor(name) for name in source.names()}
    layers = len(facts["layers"])
    for name in needed:
        if name not in ("tables", "centres", "levels", "gains") and len(tensors[name]) != layers:
            raise bad_input(
                f"{source.label}: {name} has {len(tensors[name])} layers, the plan {layers}", _AGAIN
            )
    if "tables" in tensors and not (tensors["tables"].numpy().astype(np.int64).sum(1) == 1 << 14).all():
        raise bad_input(f"{source.label}: its tables do not sum to their denominator", _AGAIN)
    return tensors


def write_plan(plan: CachePlan, target: str, force: bool) -> dict[str, Any] | None:
    """Write a plan: .json with its tensors beside it, else one artifact. Returns the manifest of what was written."""
    if not target.endswith(".json"):
        with Writer(target, KIND, force=force) as out:
            out.describe("kv", plan.facts)
            out.describe("history", plan.facts.get("history", []))
            for name, tensor in plan.tensors.items():
                out.add(name, tensor)
        return out.manifest
    check_target(target, force)
    path, facts = Path(target), dict(plan.facts)
    if plan.tensors:
        beside = path.with_suffix(".safetensors")
        facts["tables"] = beside.name
        write_plan(CachePlan(facts, plan.tensors), str(beside), force)
    data = json.dumps(facts, indent=1).encode() + b"\n"
    temporary = temporary_name(path)
    write_durably(temporary, data)
    publish(temporary, path, force)
    return {"bntools": 1, "kind": KIND, "path": str(path.absolute()), "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest()}  # fmt: skip


__all__ = [
    "KIND",
    "METHODS",
    "STDOUT",
    "CachePlan",
    "check_model",
    "describe_model",
    "read_plan",
    "write_plan",
]
