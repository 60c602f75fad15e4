"""One model quantized by another library: a dense copy of what it reads back, and the bytes it takes.

usage: peers.py NAME MODEL_DIR OUT_DIR      NAME: one of those in ROWS

Prints one JSON object: bytes and bits of the linear weights, every tensor that their packed form keeps counted, and
seconds. The dense copy, in float32, is what `bntools eval` measures. Exit 5 where the library is not installed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import transformers
from torch import Tensor, nn

Coded = tuple[Tensor, int]  # a dense weight, and the bytes it was packed in


def hqq(bits: int, axis: int) -> Callable[[Tensor], Coded]:
    """HQQ's own defaults: 64 weights a group, scales and zeros in float16."""
    from hqq.core.quantize import Quantizer

    def code(w: Tensor) -> Coded:
        packed, meta = Quantizer.quantize(
            w.half(), nbits=bits, group_size=64, axis=axis, channel_wise=True, round_zero=bits == 4,
            optimize=True, view_as_float=False, compute_dtype=torch.float16, device="cpu",
        )  # fmt: skip
        size = packed.nbytes + sum(2 * meta[key].numel() for key in ("scale", "zero"))
        return Quantizer.dequantize(packed, meta).float().view(w.shape), size

    return code


def quanto(bits: int) -> Callable[[Tensor], Coded]:
    from optimum.quanto import MaxOptimizer, qint2, qint4, quantize_weight

    kind = {2: qint2, 4: qint4}[bits]

    def code(w: Tensor) -> Coded:
        group = next(size for size in (128, 64, 32) if w.numel() % size == 0 and w.shape[1] % size == 0)
        scale, shift = MaxOptimizer()(w, kind, 0, group)
        packed = quantize_weight(w, kind, 0, scale, shift, group_size=group, optimized=False)
        return packed.dequantize(), w.numel() * bits // 8 + 2 * (scale.numel() + shift.numel())

    return code


def torchao(bits: int) -> Callable[[Tensor], Coded]:
    """Integers of any width, asymmetric, 64 weights a group; its file keeps a byte a code, counted here as `bits`."""
    from torchao.quantization import IntxWeightOnlyConfig, quantize_
    from torchao.quantization.granularity import PerGroup
    from torchao.quantization.quant_primitives import MappingType

    config = IntxWeightOnlyConfig(
        weight_dtype=getattr(torch, f"int{bits}"),
        granularity=PerGroup(64),
        mapping_type=MappingType.ASYMMETRIC,
    )

    def code(w: Tensor) -> Coded:
        linear = nn.Linear(w.shape[1], w.shape[0], bias=False)
        linear.weight.data = w.clone()
        quantize_(linear, config)
        found: Any = linear.weight
        groups = w.numel() // 64
        size = (w.numel() * bits + groups * (16 + bits)) // 8
        return found.dequantize().detach().float(), size

    return code


def gguf(kind: str) -> Callable[[Tensor], Coded]:
    """What the gguf package itself can write: blocks of 32; no K-quants, which it only reads."""
    from gguf import GGMLQuantizationType, quants

    which = GGMLQuantizationType[kind]

    def code(w: Tensor) -> Coded:
        packed = quants.quantize(w.numpy(), which)
        return torch.from_numpy(quants.dequantize(packed, which)), packed.nbytes

    return code


ROWS: dict[str, Callable[[], Callable[[Tensor], Coded]]] = {
    **{
        f"hqq {bits} bits axis {axis}": lambda b=bits, a=axis: hqq(b, a) for bits in (3, 4) for axis in (0, 1)
    },
    "quanto 4 bits": lambda: quanto(4),
    **{f"torchao {bits} bits": lambda b=bits: torchao(b) for bits in (3, 4)},
    **{f"gguf {kind}": lambda k=kind: gguf(k) for kind in ("Q4_0", "Q4_1")},
}


def linears(model: nn.Module) -> Iterator[nn.Linear]:
    head = model.get_output_embeddings()  # type: ignore[operator]
    for module in model.modules():
        if isinstance(module, nn.Linear) and module is not head:
            yield module


@torch.no_grad()
def main(name: str, source: str, target: str) -> None:
    try:
        code = ROWS[name]()
    except ImportError as error:
        print(f"{error.name} is not installed", file=sys.stderr)
        sys.exit(5)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    size = weights = 0
    began = time.monotonic()
    for module in linears(model):
        values, took = code(module.weight.data)
        module.weight.data.copy_(values)
        size, weights = size + took, weights + module.weight.numel()
    seconds = time.monotonic() - began
    model.save_pretrained(target)
    transformers.AutoTokenizer.from_pretrained(source).save_pretrained(target)
    print(json.dumps({"bytes": size, "linear": 8 * size / weights, "weights": weights, "seconds": seconds}))


if __name__ == "__main__":
    if len(sys.argv) != 4:
        print(__doc__)
        sys.exit()  # `make bench` runs every script without arguments
    main(*sys.argv[1:])
