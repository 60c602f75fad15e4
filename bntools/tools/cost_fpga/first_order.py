"""Resources and time of a network by counting: multipliers, memory, rounds. No constant here was fitted to anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bntools.tools.cost_fpga.network import Layer

TARGETS = ("dsp", "lut", "ff", "bram", "cycles", "interval")
_LUT_PRODUCT = 10  # bits of both operands below which a product is made of look-up tables
_DSP_WIDE, _DSP_NARROW = 27, 18  # operands of one DSP48E2
_BLOCK_RAM = 18_432


class Counted(NamedTuple):
    """One layer: multiplications, multipliers, bits of weights, and the six targets."""

    products: int
    multipliers: int
    weight_bits: int
    dsp: float
    lut: float
    ff: float
    bram: float
    cycles: float
    interval: float


def count_layer(layer: Layer) -> Counted:
    """Lower bounds that follow from the reuse factor and the bit widths.

    DSP: multipliers, several where an operand is wide, none below 10 bits; LUT: one a bit of each product so made and
    of each adder; FF: a register of each product; BRAM of the resource strategy: bits, at the width a round needs;
    interval: reuse times positions; cycles: that and a tree of adders.
    """
    if not layer.products:
        width = layer.outputs * layer.input_bits
        return Counted(0, 0, 0, 0.0, float(width), float(width), 0.0, 1.0, 1.0)
    multipliers = -(-layer.products // layer.reuse)
    narrow, wide = sorted((layer.weight_bits, layer.input_bits))
    small = narrow < _LUT_PRODUCT
    dsp = 0 if small else multipliers * (-(-narrow // _DSP_NARROW)) * (-(-wide // _DSP_WIDE))
    summed = narrow + wide + layer.inputs.bit_length()
    lut = multipliers * (summed + (narrow * wide if small else 0))
    stored = layer.products * layer.weight_bits
    bram = 0.0
    if layer.strategy == "resource":
        bram = max(
            -(-stored // _BLOCK_RAM), -(-multipliers * layer.weight_bits // 36) if layer.reuse > 1 else 0
        )
    interval = layer.reuse * layer.positions
    cycles = interval + layer.inputs.bit_length()
    return Counted(layer.products * layer.positions, multipliers, stored, float(dsp), float(lut),
                   float(multipliers * summed), float(bram), float(cycles), float(interval))  # fmt: skip


def count_network(layers: Sequence[Layer]) -> dict[str, float]:
    """The targets of a chain: resources and cycles add up, the slowest layer sets the interval."""
    counted = [count_layer(layer) for layer in layers]
    total = {name: sum(getattr(layer, name) for layer in counted) for name in TARGETS[:-1]}
    return {**total, "interval": max(layer.interval for layer in counted)}
