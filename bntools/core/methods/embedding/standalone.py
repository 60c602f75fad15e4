"""Embedding tables and their head as a torch module of one file: needs torch and safetensors, nothing else.

from module import load
model = load("folder")
logits = model({"user": ["u1", "u2"], "item": ["7", "9"]})
"""

import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import load_file

MISSING = "<missing>"
_LARGE = (1 << 64) - 1


def text(value):
    """A value as training named it: whole numbers without a point, NaN and nothing as <missing>."""
    if isinstance(value, float):
        if value != value:
            return MISSING
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    return MISSING if value == "" or value is None else str(value)


def bucket(value, count, *seeds):
    """BLAKE2b of the text, then SplitMix64 under each seed."""
    x = int.from_bytes(hashlib.blake2b(value.encode(), digest_size=8).digest(), "little")
    for seed in seeds:
        x = (x + 0x9E3779B97F4A7C15 * (seed + 1)) & _LARGE
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _LARGE
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _LARGE
        x ^= x >> 31
    return x % count


class DenseField(torch.nn.Module):
    """A row a value; unseen values are 0."""

    def __init__(self, fact, table):
        super().__init__()
        self.table = torch.nn.Parameter(torch.cat([table, torch.zeros(1, table.shape[1])]))
        self.known = {v: i for i, v in enumerate(fact["vocab"])}

    def forward(self, values):
        ids = torch.tensor([self.known.get(v, len(self.known)) for v in values])
        return torch.nn.functional.embedding(ids, self.table)


class SpectralField(torch.nn.Module):
    """mean + a prefix of coordinates times axes; unseen values are 0. Only the kept numbers are held."""

    def __init__(self, fact, kept, lengths, axes, mean):
        super().__init__()
        self.kept, self.axes, self.mean = (torch.nn.Parameter(x) for x in (kept, axes, mean))
        self.known = {v: i for i, v in enumerate(fact["vocab"])}
        r = torch.cat([torch.full((int(lengths[k]),), k) for k in range(len(lengths) - 1, -1, -1)]).long()
        self.register_buffer("length", r)
        self.register_buffer("start", torch.cumsum(r, 0) - r)

    def forward(self, values):
        ids = torch.tensor([self.known.get(v, len(self.known)) for v in values])
        seen = (ids < len(self.known))[:, None]
        ids = ids.clamp(max=len(self.known) - 1)
        k = torch.arange(len(self.axes))
        inside = k < self.length[ids][:, None]
        place = (self.start[ids][:, None] + k).clamp(max=max(len(self.kept) - 1, 0))
        coordinates = self.kept[place] * inside if len(self.kept) else torch.zeros(len(ids), len(self.axes))
        return (self.mean + coordinates @ self.axes) * seen


class HashedField(torch.nn.Module):
    """Chunks of a table, found by a hash of the value for each lookup; every value has some."""

    def __init__(self, fact, table, t):
        super().__init__()
        self.table, self.fact, self.t = table, fact, t

    def forward(self, values):
        fact, flat = self.fact, self.table.reshape(-1)
        parts = []
        for j in range(fact["lookups"]):
            seeds = (fact["seed"], self.t) if fact["lookups_seeded"] is False else (fact["seed"], self.t, j)
            start = torch.tensor([bucket(v, fact["count"], *seeds) for v in values]) * fact["stride"]
            parts.append(flat[start[:, None] + torch.arange(fact["chunk"])])
        return torch.cat(parts, 1)


class PerceptronField(torch.nn.Module):
    """A network, shared by all fields, over many hashes of the value in [-1, 1]; every value has some."""

    def __init__(self, fact, layers, t):
        super().__init__()
        self.layers, self.seed, self.t = layers, fact["seed"], t

    def forward(self, values):
        W0, b0, W1, b1, W2 = (self.layers[name] for name in ("W0", "b0", "W1", "b1", "W2"))
        codes = [[bucket(v, 1 << 20, self.seed, self.t, j) for j in range(len(W0))] for v in values]
        x = torch.tensor(codes, dtype=torch.float32) * (2 / ((1 << 20) - 1)) - 1
        hidden = torch.nn.functional.mish(x @ W0 + b0)
        return torch.nn.functional.mish(hidden @ W1 + b1) @ W2


class EmbeddingModel(torch.nn.Module):
    """Vectors of the fields, side by side, and the head: one logit, or predicted number, a row."""

    def __init__(self, facts, tensors):
        super().__init__()
        self.facts = facts
        self.head = torch.nn.ParameterDict({n[5:]: p for n, p in tensors.items() if n.startswith("head.")})
        if "table" in tensors:
            self.table = torch.nn.Parameter(tensors["table"])
        layers = torch.nn.ParameterDict({n[6:]: p for n, p in tensors.items() if n.startswith("layer.")})
        fields = []
        for t, one in enumerate(facts["fields"]):
            own = {
                n.split(".")[0]: p
                for n, p in tensors.items()
                if n.endswith(f".{t}") and not n.startswith("head.")
            }
            if one["form"] == "dense":
                fields.append(DenseField(one, own["table"]))
            elif one["form"] == "spectral":
                fields.append(SpectralField(one, own["kept"], own["lengths"], own["axes"], own["mean"]))
            elif one["form"] == "perceptron":
                fields.append(PerceptronField(one, layers, t))
            else:
                fields.append(
                    HashedField(
                        one, self.table if "table" not in own else torch.nn.Parameter(own["table"]), t
                    )
                )
        self.fields = torch.nn.ModuleList(fields)

    def vectors(self, columns):
        """x0 [rows, D] of columns {field: values}."""
        names = [one["name"] for one in self.facts["fields"]]
        return torch.cat([f([text(v) for v in columns[n]]) for f, n in zip(self.fields, names)], 1)  # noqa: B905

    def forward(self, columns):
        """Logits [rows]; the probability is their sigmoid where the task is binary."""
        x0, p = self.vectors(columns), self.head
        if self.facts["model"] != "dcn":
            x = x0.view(len(x0), len(self.fields), -1)
            total = x[..., :-1].sum(1)
            pairs = 0.5 * (total.square() - x[..., :-1].square().sum(1)).sum(1)
            return pairs + x[..., -1].sum(1) + p["bias"]
        x1 = x0 * (x0 @ p["U"] @ p["V"] + p["b"]) + x0
        h = (x0 @ p["W1"] + p["b1"]).relu()
        h = (h @ p["W2"] + p["b2"]).relu()
        return x1 @ p["w_cross"] + h @ p["w_deep"] + p["bias"]


def load(folder):
    """The model of a folder that bntools export wrote."""
    folder = Path(folder)
    return EmbeddingModel(
        json.loads((folder / "fields.json").read_text()), load_file(folder / "weights.safetensors")
    )
