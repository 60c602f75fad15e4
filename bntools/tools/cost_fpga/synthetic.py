"""Networks with resources by a law that is known, in place of syntheses: to test correctors, and to try the tool."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from bntools.tools.cost_fpga.first_order import count_layer
from bntools.tools.cost_fpga.network import PRODUCTS, Layer, parse_network

NOISE = 0.01


def law(layers: list[Layer]) -> dict[str, float]:
    """The truth: of each layer a power and a constant that the first order does not know."""
    total = dict.fromkeys(("dsp", "lut", "ff", "bram", "cycles"), 0.0)
    slowest = 1.0
    for layer in layers:
        counted = count_layer(layer)
        grown = 1 + 0.05 * math.log2(1 + layer.inputs)
        total["dsp"] += counted.dsp * (0.85 if layer.strategy == "latency" else 1.0)
        total["lut"] += 1.8 * counted.lut * grown + 40
        total["ff"] += 1.3 * counted.ff * grown + 25
        total["bram"] += counted.bram * (1.25 if layer.reuse > 4 else 1.0)
        total["cycles"] += counted.cycles + (5 if layer.kind in PRODUCTS else 2)
        slowest = max(slowest, counted.interval + (1 if layer.strategy == "resource" else 0))
    return {**total, "interval": slowest}


def rows(count: int, seed: int, deepest: int = 5) -> Iterator[dict[str, Any]]:
    """Lines of a table: an architecture's name, layers, and six targets with 1 % noise; four lines share a shape."""
    rng = np.random.default_rng(seed)
    widths = np.empty(0, np.int64)
    for index in range(count):
        if index % 4 == 0:
            widths = 2 ** rng.integers(3, 8, rng.integers(2, deepest + 1) + 1)
        setting = {"weight_bits": int(rng.choice([4, 8, 12, 16])), "input_bits": int(rng.choice([8, 12, 16])),
                   "reuse": int(2 ** rng.integers(0, 7)),
                   "strategy": str(rng.choice(["latency", "resource"]))}  # fmt: skip
        listed: list[dict[str, Any]] = []
        for inputs, outputs in pairwise(widths):
            listed.append({"type": "dense", "inputs": int(inputs), "outputs": int(outputs), **setting})
            listed.append({"type": "relu", "input_bits": setting["input_bits"]})
        layers = parse_network({"layers": listed}, "synthetic")
        noise = np.exp(rng.normal(0, NOISE, 6))
        truth = {
            name: round(value * factor)
            for (name, value), factor in zip(law(layers).items(), noise, strict=True)
        }
        yield {"architecture": f"net{index // 4}", "layers": listed, **truth}
