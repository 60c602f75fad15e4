"""What turns the fields' vectors into one logit: matrix factorization, factorization machine, deep and cross network.

x0 [B, D] is the concatenation of the fields' vectors. Gradients are written out: a step has no graph to build.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

Parameters = dict[str, Tensor]
HIDDEN, CROSS_RANK = (64, 32), 32


class Head:
    """One head: `forward` keeps what `backward` needs. widths: of the fields; kinds: mf, fm, dcn."""

    def __init__(
        self, kind: str, widths: tuple[int, ...], seed: int = 0, parameters: Parameters | None = None
    ):
        self.kind, self.widths = kind, tuple(widths)
        if kind not in ("mf", "fm", "dcn"):
            raise ValueError(f"unknown head {kind!r}")
        if kind != "dcn" and len(set(widths)) != 1:
            raise ValueError("mf and fm need fields of one width")
        if kind == "mf" and len(widths) != 2:
            raise ValueError("mf has two fields")
        self.parameters = parameters or _fresh(kind, sum(widths), seed)
        self.gradients = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self._kept: Any = None

    @property
    def count(self) -> int:
        return sum(p.numel() for p in self.parameters.values())

    def forward(self, x0: Tensor) -> Tensor:
        """Logits [B]."""
        return self._dcn(x0) if self.kind == "dcn" else self._machine(x0)

    def backward(self, g: Tensor) -> Tensor:
        """Gradients of the parameters, replaced, and of x0, returned; g [B] is that of the logits."""
        return self._dcn_back(g) if self.kind == "dcn" else self._machine_back(g)

    def _machine(self, x0: Tensor) -> Tensor:
        """The last number of a field's vector is its bias; products of the others over all pairs of fields."""
        x = x0.view(len(x0), len(self.widths), -1)
        factors = x[..., :-1]
        total = factors.sum(1)
        pairs = 0.5 * (total.square() - factors.square().sum(1)).sum(1)
        self._kept = (x, total)
        return pairs + x[..., -1].sum(1) + self.parameters["bias"]

    def _machine_back(self, g: Tensor) -> Tensor:
        x, total = self._kept
        out = torch.empty_like(x)
        out[..., :-1] = (total[:, None] - x[..., :-1]) * g[:, None, None]
        out[..., -1] = g[:, None]
        self.gradients["bias"] = g.sum().reshape(1)
        return out.view(len(x), -1)

    def _dcn(self, x0: Tensor) -> Tensor:
        """x1 = x0 * (V U x0 + b) + x0 beside a perceptron; one linear map of both (DCN V2, arXiv 2008.13535)."""
        p = self.parameters
        low = x0 @ p["U"]
        cross = torch.addmm(p["b"], low, p["V"])
        h1 = torch.addmm(p["b1"], x0, p["W1"]).clamp_min_(0)
        h2 = torch.addmm(p["b2"], h1, p["W2"]).clamp_min_(0)
        x1 = torch.addcmul(x0, x0, cross)
        self._kept = (x0, low, cross, h1, h2, x1)
        return torch.mv(x1, p["w_cross"]).add_(torch.mv(h2, p["w_deep"])).add_(p["bias"])

    def _dcn_back(self, g: Tensor) -> Tensor:
        p, grad = self.parameters, self.gradients
        x0, low, cross, h1, h2, x1 = self._kept
        grad["bias"] = g.sum().reshape(1)
        torch.mv(x1.T, g, out=grad["w_cross"])
        torch.mv(h2.T, g, out=grad["w_deep"])
        gx1 = torch.outer(g, p["w_cross"])
        gcross = gx1 * x0
        gx0 = torch.addcmul(gx1, gx1, cross)
        grad["b"] = gcross.sum(0)
        torch.mm(low.T, gcross, out=grad["V"])
        glow = gcross @ p["V"].T
        torch.mm(x0.T, glow, out=grad["U"])
        gx0.addmm_(glow, p["U"].T)
        g2 = torch.outer(g, p["w_deep"]).mul_(h2 > 0)
        grad["b2"] = g2.sum(0)
        torch.mm(h1.T, g2, out=grad["W2"])
        g1 = (g2 @ p["W2"].T).mul_(h1 > 0)
        grad["b1"] = g1.sum(0)
        torch.mm(x0.T, g1, out=grad["W1"])
        return gx0.addmm_(g1, p["W1"].T)


def _fresh(kind: str, width: int, seed: int) -> Parameters:
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int, fan: int) -> Tensor:
        bound = 1 / math.sqrt(fan)
        return torch.empty(shape).uniform_(-bound, bound, generator=generator)

    if kind != "dcn":
        return {"bias": torch.zeros(1)}
    rank, (a, b) = min(CROSS_RANK, width), HIDDEN
    return {
        "U": uniform(width, rank, fan=width), "V": uniform(rank, width, fan=rank), "b": torch.zeros(width),
        "W1": uniform(width, a, fan=width), "b1": uniform(a, fan=width),
        "W2": uniform(a, b, fan=a), "b2": uniform(b, fan=a),
        "w_cross": uniform(width, fan=width + b), "w_deep": uniform(b, fan=width + b), "bias": torch.zeros(1),
    }  # fmt: skip
