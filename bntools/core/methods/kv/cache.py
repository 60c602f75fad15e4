"""A cache of transformers that follows a plan, and its file."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from bntools.core.artifact.reader import Artifact, open_path
from bntools.core.artifact.writer import Writer
from bntools.core.errors import bad_input, usage
from bntools.core.methods.kv import watch
from bntools.core.methods.kv.attention.packed_steps import PackedSteps
from bntools.core.methods.kv.entropy_code import CodedBlock
from bntools.core.methods.kv.layer import PlannedLayer
from bntools.core.methods.kv.plan import CachePlan, check_model, read_plan

KIND = "kv-cache"


def full_layers(model: Any) -> list[int]:
    """Layers with a growing cache of keys and values; BnError (exit 3) where there is none."""
    config = model.config
    if getattr(config, "is_encoder_decoder", False) or not getattr(model, "can_generate", lambda: False)():
        raise bad_input(
            f"{type(model).__name__} is no decoder: no attention cache to compress", "name a decoder"
        )
    layers = DynamicCache(config=config).layers
    growing = [index for index, layer in enumerate(layers) if type(layer) is DynamicLayer]
    if not growing:
        raise bad_input("no full-attention layer: no attention cache to compress", "")
    return growing


class PlannedCache(Cache):
    """Keys and values in the few bits of a plan, for `model.generate(past_key_values=...)`.

    Each token is coded once. Layers with a window or a state of their own stay as transformers has them. A plan with
    token weights needs to see the queries, and of the code `fixed` steps of one token are answered from packed rows:
    `from_plan` then watches the model's attention, `detach` ends that.
    """

    def __init__(self, plan: CachePlan, model: Any) -> None:
        if plan.method != "rate":
            raise usage(
                f"a plan of {plan.method} is scored, not followed", "bntools eval MODEL --kv plan.json"
            )
        self.plan = plan
        layers: list[Any] = list(DynamicCache(config=model.config).layers)
        for index, coder in plan.coders().items():
            layers[index] = PlannedLayer(coder, plan.facts["sink"], plan.facts["recent"], plan.facts["gamma"])
        super().__init__(layers=layers)
        self._undo: Any = None
        if plan.facts["gamma"] > 0 and plan.code == "entropy":
            self._undo = watch.attach(model, _observer(weakref.ref(self)))
        if plan.code == "fixed" and watch.can_attach(model.config):
            self._undo = watch.attach(model)
            for layer in self.coded_layers:
                layer.steps = PackedSteps(model.config)

    @classmethod
    def from_plan(cls, plan: str | Path | CachePlan, model: Any) -> PlannedCache:
        """An empty cache for a transformers model. Raises BnError (exit 3) for a plan of another model."""
        plan = plan if isinstance(plan, CachePlan) else read_plan(plan)
        check_model(plan.facts["model"], model, "the plan")
        return cls(plan, model)

    def detach(self) -> None:
        """Watch the model no more: tokens coded from now on have no weights of their own, steps decode every layer."""
        if self._undo is not None:
            self._undo()
            self._undo = None
        for layer in self.coded_layers:
            layer.steps = None

    @property
    def coded_layers(self) -> list[PlannedLayer]:
        return [layer for layer in self.layers if isinstance(layer, PlannedLayer)]

    def flush(self) -> None:
        """Code every token that is not a first one, also those of the exact ring: before the cache becomes a file."""
        for layer in self.coded_layers:
            layer.flush(everything=True)

    @property
    def nbytes(self) -> int:
        """Bytes of the planned layers, exact tokens in 16 bits."""
        return sum(layer.nbytes() for layer in self.coded_layers)

    @property
    def bits_per_value(self) -> float:
        """Everything counted but the plan itself, which serves any number of caches."""
        values = 0
        for layer in self.coded_layers:
            if layer.first is not None:
                _, batch, heads, _, d = layer.first.shape
                values += 2 * batch * heads * d * layer.get_seq_length()
        return 8 * self.nbytes / max(values, 1)

    def dynamic(self) -> DynamicCache:
        """A plain cache of what this one decodes to, for reading many tokens on."""
        result = DynamicCache()
        for index, layer in enumerate(self.layers):
            k, v = layer.dense() if isinstance(layer, PlannedLayer) else (layer.keys, layer.values)
            result.update(k, v, index)
        return result

    def save(self, target: str, ids: Tensor, force: bool = False, history: list[Any] | None = None) -> Any:
        """Write the cache of token ids [n], one row of a batch, all of it coded. Returns the manifest."""
        if len(self.coded_layers) != len(self.layers):
            raise usage("layers with a window or state of their own are not stored", "name another model")
        self.flush()
        facts = {"model": self.plan.facts["model"], "length": len(ids), "code": self.plan.code,
                 "bits": round(self.bits_per_value, 4), "plan": self.plan.facts}  # fmt: skip
        with Writer(target, KIND, force=force) as out:
            out.describe("kv", facts)
            out.describe("history", history or [])
            for name, tensor in self.plan.tensors.items():
                out.add(f"plan.{name}", tensor)
            out.add("tokens", ids.to(torch.int32).cpu())
            for at, layer in enumerate(self.coded_layers):
                _write_layer(out, at, layer)
        return out.manifest

    @classmethod
    def load(cls, source: str | Path | Artifact, model: Any) -> PlannedCache:
        """The cache of a file, ready to be read on from. Raises BnError (exit 3) for a file of another model."""
        artifact = source if isinstance(source, Artifact) else open_path(source)
        if artifact.kind != KIND:
            raise bad_input(f"{artifact.label} is an artifact of kind {artifact.kind!r}, not a stored cache")
        facts = artifact.json("bntools.kv", dict)
        check_model(facts.get("model", {}), model, artifact.label)
        tensors = {name[5:]: artifact.tensor(name) for name in artifact.names() if name.startswith("plan.")}
        cache = cls(CachePlan(facts["plan"], tensors), model)
        cache.tokens = artifact.tensor("tokens")
        dtype = next(model.parameters()).dtype
        for at, layer in enumerate(cache.coded_layers):
            _read_layer(artifact, at, layer, (dtype, next(model.parameters()).device))
        return cache


def _observer(reference: Any) -> watch.Watch:
    def see(layer: int, q: Tensor, k: Tensor, v: Tensor, scaling: float) -> None:
        cache = reference()
        if cache is not None and isinstance(cache.layers[layer], PlannedLayer):
            cache.layers[layer].observe(q, k, scaling)

    return see


def _write_layer(out: Writer, at: int, layer: PlannedLayer) -> None:
    if layer.first is None or len(layer.blocks) != 1:
        raise usage("one prompt is stored at a time", "run the model on a batch of one")
    blocks = layer.blocks[0]
    sizes = np.cumsum([0, *(len(block.data) for block in blocks)]).astype(np.uint32)
    lengths = np.array([(block.tokens, block.used) for block in blocks], np.uint8).reshape(-1, 2)
    data = b"".join(block.data for block in blocks)
    out.add_raw(f"kv.{at}", "U8", (len(data),), data)
    out.add(f"kv.{at}.start", torch.from_numpy(sizes))
    out.add(f"kv.{at}.tokens", torch.from_numpy(lengths))
    out.add(f"exact.{at}", layer.first[:, 0])


def _read_layer(
    source: Artifact, at: int, layer: PlannedLayer, kind: tuple[torch.dtype, torch.device]
) -> None:
    first = source.tensor(f"exact.{at}")[:, None].to(kind[1])
    layer.lazy_initialization(first[0].to(kind[0]), first[1].to(kind[0]))
    layer.first = first
    starts, lengths = source.tensor(f"kv.{at}.start").tolist(), source.tensor(f"kv.{at}.tokens").tolist()
    data = bytes(source.raw(f"kv.{at}"))
    if len(starts) != len(lengths) + 1 or starts[-1] != len(data):
        raise bad_input(f"{source.label}: the blocks of layer {at} are damaged", "make the file again")
    layer.blocks = [[
        CodedBlock(data[start:stop], tokens, used)
        for start, stop, (tokens, used) in zip(starts, starts[1:], lengths, strict=False)
    ]]  # fmt: skip
