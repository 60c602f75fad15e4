"""A network as layers of a chain, from JSON, and the FPGA parts it may be put on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from bntools.core.errors import bad_input

PRODUCTS = ("dense", "conv1d", "conv2d")
OTHERS = ("relu", "softmax", "sigmoid", "tanh", "linear", "batchnorm", "flatten", "pooling", "add")
STRATEGIES = ("latency", "resource")
PARTS = {  # DSP slices, look-up tables, flip-flops, block RAMs of 18 kbit: AMD's product tables
    "xc7z020": (220, 53_200, 106_400, 280), "xczu7ev": (1728, 230_400, 460_800, 624),
    "xczu9eg": (2520, 274_080, 548_160, 1824), "xcku115": (5520, 663_360, 1_326_720, 4320),
    "xcu200": (6840, 1_182_240, 2_364_480, 4320), "xcu250": (12_288, 1_728_000, 3_456_000, 5376),
    "xcvu9p": (6840, 1_182_240, 2_364_480, 4320), "xcvu13p": (12_288, 1_728_000, 3_456_000, 5376),
}  # fmt: skip
_HINT = '{"layers": [{"type": "dense", "inputs": 16, "outputs": 64, "weight_bits": 8, "input_bits": 8}, ...]}'


class Layer(NamedTuple):
    """One layer. inputs, outputs: of the product that is made `positions` times; reuse: uses of a multiplier."""

    kind: str
    inputs: int
    outputs: int
    positions: int
    weight_bits: int
    input_bits: int
    reuse: int
    strategy: str
    asked: int

    @property
    def products(self) -> int:
        """Multiplications of one position."""
        return self.inputs * self.outputs if self.kind in PRODUCTS else 0


class Defaults(NamedTuple):
    """What a layer has that says nothing else."""

    reuse: int = 1
    strategy: str = "latency"
    bits: int = 16


PLAIN = Defaults()


def parse_network(value: Mapping[str, Any], label: str, defaults: Defaults = PLAIN) -> list[Layer]:
    """Layers of {"layers": [..]}; a reuse factor that is not legal becomes the nearest that is.

    Raises BnError (exit 3) on unknown types, all of them listed, and on missing or impossible sizes.
    """
    listed = value.get("layers")
    if not isinstance(listed, list) or not listed or not all(isinstance(item, dict) for item in listed):
        raise bad_input(f"{label} lists no layers", _HINT)
    unknown = sorted({str(item.get("type")) for item in listed} - {*PRODUCTS, *OTHERS})
    if unknown:
        raise bad_input(f"{label}: unknown layer types {', '.join(unknown)}",
                        f"known are {', '.join((*PRODUCTS, *OTHERS))}")  # fmt: skip
    layers: list[Layer] = []
    for index, item in enumerate(listed):
        before = layers[-1].outputs * layers[-1].positions if layers else None
        layers.append(_layer(item, f"{label}, layer {index + 1}", defaults, before))
    return layers


def _layer(item: Mapping[str, Any], where: str, defaults: Defaults, before: int | None) -> Layer:
    def size(key: str, default: int | None = None) -> int:
        value = item.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 31:
            raise bad_input(f"{where}: {key} is {value!r}, not a size", _HINT)
        return value

    kind = str(item["type"])
    bits = size("weight_bits", defaults.bits), size("input_bits", defaults.bits)
    strategy = item.get("strategy", defaults.strategy)
    if strategy not in STRATEGIES:
        raise bad_input(f"{where}: strategy is {strategy!r}", f"one of {', '.join(STRATEGIES)}")
    if kind == "dense":
        inputs, outputs, positions = size("inputs", before), size("outputs"), 1
    elif kind in PRODUCTS:
        window = item.get("kernel", 3)
        area = math.prod(window) if isinstance(window, list) else window ** (2 if kind == "conv2d" else 1)
        inputs, outputs, positions = size("channels") * area, size("filters"), size("positions")
    else:
        inputs = outputs = size("size", before)
        positions = 1
    asked = size("reuse", defaults.reuse)
    reuse = nearest_reuse(inputs, outputs, asked) if kind in PRODUCTS else 1
    return Layer(kind, inputs, outputs, positions, *bits, reuse, strategy, asked if kind in PRODUCTS else 1)


def legal_reuse(inputs: int, outputs: int, reuse: int) -> bool:
    """Whether hls4ml's matrix product can share its multipliers so often."""
    multipliers = -(-inputs * outputs // min(inputs, reuse))
    return (
        inputs * outputs % reuse == 0
        and (reuse >= inputs or multipliers % outputs == 0)
        and (reuse < inputs or reuse % inputs == 0)
    )


def nearest_reuse(inputs: int, outputs: int, asked: int) -> int:
    """The legal reuse factor nearest to the one asked for, the smaller on a tie."""
    total = inputs * outputs
    divisors = {d for i in range(1, math.isqrt(total) + 1) if total % i == 0 for d in (i, total // i)}
    legal = [d for d in divisors if legal_reuse(inputs, outputs, d)]
    return min(legal, key=lambda d: (abs(d - asked), d))
