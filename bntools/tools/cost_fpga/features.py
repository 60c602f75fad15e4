"""Numbers by which a network is compared with others: of each layer, and of the whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bntools.tools.cost_fpga.first_order import TARGETS, count_layer, count_network
from bntools.tools.cost_fpga.network import PRODUCTS, Layer

Floats = NDArray[np.float64]
LAYER_FEATURES = (
    "inputs", "outputs", "positions", "weight_bits", "input_bits", "reuse", "multipliers", *TARGETS,
    "dense", "convolution", "resource", "place",
)  # fmt: skip


def layer_features(layers: Sequence[Layer]) -> Floats:
    """[layers, features]: logarithms of sizes and counts, and what kind a layer is."""
    rows = []
    for place, layer in enumerate(layers):
        counted = count_layer(layer)
        sizes = [layer.inputs, layer.outputs, layer.positions, layer.weight_bits, layer.input_bits, layer.reuse,
                 counted.multipliers, *(getattr(counted, name) for name in TARGETS)]  # fmt: skip
        kinds = [
            layer.kind == "dense",
            layer.kind in PRODUCTS[1:],
            layer.strategy == "resource",
            place / len(layers),
        ]
        rows.append([*np.log1p(sizes), *map(float, kinds)])
    return np.array(rows)


def network_features(layers: Sequence[Layer]) -> Floats:
    """[features]: means, maxima and logarithms of sums over the layers, and the first order of each target."""
    rows = layer_features(layers)
    sums = np.log1p(np.expm1(np.minimum(rows[:, :13], 50)).sum(0))
    first = count_network(layers)
    return np.concatenate([rows.mean(0), rows.max(0), sums, [np.log1p(first[name]) for name in TARGETS],
                           [len(layers)]])  # fmt: skip
