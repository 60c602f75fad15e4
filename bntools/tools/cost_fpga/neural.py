"""Correctors that see the layers: a graph network along the chain, and a transformer with a token a layer."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Floats = NDArray[np.float64]
WIDTH = 64
EPOCHS = 150


class Graph(nn.Module):
    """Three GraphSAGE layers with mean aggregation along the chain, mean and max pooling (Hamilton et al. 2017)."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        sizes = [features, WIDTH, WIDTH, WIDTH]
        self.own = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.near = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairwise(sizes))
        self.head = nn.Linear(2 * WIDTH, outputs)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x [nets, layers, features], mask [nets, layers]: what is a layer. Returns [nets, outputs]."""
        there = mask.unsqueeze(-1).to(x.dtype)
        degree = _neighbours(there).clamp(min=1)
        for own, near in zip(self.own, self.near, strict=True):
            x = torch.relu(own(x) + near(_neighbours(x * there) / degree)) * there
        mean = x.sum(1) / there.sum(1)
        return self.head(torch.cat([mean, x.masked_fill(~mask.unsqueeze(-1), -1e9).amax(1)], -1))


class Sequence(nn.Module):
    """Two transformer layers of width 64 over tokens of layers; the mean of the tokens is read."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.embed = nn.Linear(features, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, 0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, outputs)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.layers(self.embed(x), src_key_padding_mask=~mask)
        there = mask.unsqueeze(-1).to(x.dtype)
        return self.head((x * there).sum(1) / there.sum(1))


NETWORKS: dict[str, type[nn.Module]] = {"graph": Graph, "transformer": Sequence}


def _neighbours(x: Tensor) -> Tensor:
    """Sum of the layer before and the one after."""
    empty = torch.zeros_like(x[:, :1])
    return torch.cat([empty, x[:, :-1]], 1) + torch.cat([x[:, 1:], empty], 1)


def padded(nets: list[Floats]) -> tuple[Tensor, Tensor]:
    """Nets of unequal depth as one tensor and its mask."""
    deepest = max(len(net) for net in nets)
    x = torch.zeros(len(nets), deepest, nets[0].shape[1])
    mask = torch.zeros(len(nets), deepest, dtype=torch.bool)
    for index, net in enumerate(nets):
        x[index, : len(net)] = torch.from_numpy(net)
        mask[index, : len(net)] = True
    return x, mask


def train(name: str, nets: list[Floats], y: Floats, quantiles: tuple[float, ...], seed: int) -> nn.Module:
    """Fit residuals y [nets, targets] at several quantiles by Adam on the pinball loss; nets are already scaled."""
    torch.manual_seed(seed)
    model = NETWORKS[name](nets[0].shape[1], y.shape[1] * len(quantiles))
    x, mask = padded(nets)
    wanted = torch.from_numpy(y).float().unsqueeze(-1)
    levels = torch.tensor(quantiles)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(256):
            error = wanted[rows] - model(x[rows], mask[rows]).view(len(rows), -1, len(quantiles))
            loss = torch.maximum(levels * error, (levels - 1) * error).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def evaluate(model: nn.Module, nets: list[Floats], targets: int) -> Floats:
    """[nets, targets, quantiles]."""
    return model(*padded(nets)).view(len(nets), targets, -1).double().numpy()
