"""Embedding tables as a folder that torch loads without bntools: module.py, fields.json, weights.safetensors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bntools.core.errors import usage
from bntools.core.methods.embedding import standalone
from bntools.core.methods.embedding.decode import table_of, unpack
from bntools.core.methods.embedding.stored import StoredTables

WEIGHTS = "weights.safetensors"
_HASHED = ("hashed", "chunks", "robe")


def files(stored: StoredTables) -> tuple[dict[str, bytes], dict[str, torch.Tensor]]:
    """Files and tensors of the folder. Spectral and hashed fields stay small, others become dense rows."""
    if not stored.head:
        raise usage("a table without a head is no model", "export what bntools embed-fit wrote")
    tensors: dict[str, Any] = {f"head.{name}": p for name, p in stored.head.items()}
    if "table" in stored.arrays:
        tensors["table"] = torch.from_numpy(stored.arrays["table"])
    tensors |= {name: torch.from_numpy(a) for name, a in stored.arrays.items() if name.startswith("layer.")}
    fields = []
    for t, one in enumerate(stored.fields):
        fact, own = _maker(one["form"])(stored, t)
        fields.append({"name": one["name"], "vocab": stored.vocab[t], **fact})
        tensors |= {
            f"{name}.{t}": torch.from_numpy(np.ascontiguousarray(array)) for name, array in own.items()
        }
    facts = {"model": stored.facts["model"], "task": stored.facts["task"], "fields": fields}
    source = Path(str(standalone.__file__)).read_bytes()
    return {"module.py": source, "fields.json": json.dumps(facts).encode() + b"\n"}, tensors


def _maker(form: str) -> Callable[[StoredTables, int], tuple[dict[str, Any], dict[str, Any]]]:
    if form in _HASHED:
        return _hashed
    return {"spectral": _spectral, "perceptron": _perceptron}.get(form, _dense)


def _perceptron(stored: StoredTables, t: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The hashes of a value are computed, its network is that of all fields."""
    return {"form": "perceptron", "seed": stored.facts["seed"]}, {}


def _dense(stored: StoredTables, t: int) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"form": "dense"}, {"table": table_of(stored, t)}


def _hashed(stored: StoredTables, t: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Where a lookup's chunk starts: bucket times stride, of `count` buckets."""
    one, arrays = stored.fields[t], stored.arrays
    seed = stored.facts["seed"]
    if one["form"] == "hashed":
        table = arrays[f"table.{one['name']}"]
        fact = {"count": len(table), "stride": table.shape[1], "chunk": table.shape[1], "lookups": 1}
        return {"form": "hashed", "seed": seed, "lookups_seeded": False, **fact}, {"table": table}
    table, c = arrays["table"], stored.facts["chunk"]
    count, stride = (len(table), c) if one["form"] == "chunks" else (len(table) - c + 1, 1)
    fact = {"count": count, "stride": stride, "chunk": c, "lookups": one["lookups"]}
    return {"form": "hashed", "seed": seed, "lookups_seeded": True, **fact}, {}


def _spectral(stored: StoredTables, t: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Codes as float32 numbers, row by row in the order of the vocabulary."""
    name, bits = stored.names[t], stored.fields[t]["bits"]
    lengths = stored.arrays[f"lengths.{name}"].astype(np.int64)
    grid = stored.arrays.get(f"grid.{name}")
    parts: list[Any] = [np.zeros(0, np.float32)]
    for r in range(len(lengths) - 1, 0, -1):
        if lengths[r]:
            kept = stored.arrays[f"rank{r}.{name}"]
            if grid is not None:
                codes = unpack(kept, bits, int(lengths[r]) * r).reshape(-1, r)
                kept = grid[:r, 0].astype(np.float32) + codes * grid[:r, 1].astype(np.float32)
            parts.append(kept.reshape(-1))
    own = {"kept": np.concatenate(parts).astype(np.float32), "lengths": lengths,
           "axes": stored.arrays[f"basis.{name}"].astype(np.float32),
           "mean": stored.arrays[f"mean.{name}"].astype(np.float32)}  # fmt: skip
    return {"form": "spectral"}, own
