"""From a shape, its weights and devices to the report: FLOPs and bytes of steps, and ceilings of their speed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from bntools.core.architecture.shapes import counts
from bntools.core.architecture.shapes.shape import ModelShape
from bntools.core.methods.devices import Device
from bntools.tools.cost.settings import Settings
from bntools.tools.cost.weights import Weights, bytes_of, step_bytes

DEFAULT_CONTEXT = 4096
_TYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "float64": "fp64", "float8_e4m3fn": "fp8"}
_LARGEST_BATCH = 1 << 20
_LONGEST = 1 << 34


class Work(NamedTuple):
    """Parts of a step in the order they run: FLOPs and bytes of each."""

    flops: tuple[float, ...]
    read: tuple[float, ...]

    def seconds(self, device: Device, dtype: str, overlap: bool) -> tuple[float, str]:
        """No less time than this, and what limits: a part takes the longer of its compute and its traffic."""
        rate = device.rate(dtype)[0]
        compute, memory = sum(self.flops) / rate, sum(self.read) / device.bandwidth
        bound = "compute" if compute > memory else "memory"
        if overlap:
            return max(compute, memory), bound
        pairs = zip(self.flops, self.read, strict=True)
        return sum(max(flops / rate, read / device.bandwidth) for flops, read in pairs), bound


class Pricing(NamedTuple):
    """One model with the types it is run in: what every question about it shares."""

    shape: ModelShape
    weights: Weights
    cache_bytes: float
    dtype: str
    overlap: bool

    def decode(self, batch: int, context: int) -> Work:
        """The step that reads `context` tokens of each sequence."""
        weights = step_bytes(self.shape, self.weights, batch)
        flops, read = [], []
        for layer, size in zip(self.shape.layers, weights[:-1], strict=True):
            linears, attention = counts.layer_step(layer, context)
            cached = layer.attention.cached * (layer.attention.seen(context) + 1) if layer.attention else 0
            flops += [2.0 * batch * linears, 2.0 * batch * attention]
            read += [size, batch * cached * self.cache_bytes]
        ends = counts.products(self.shape.outer) + counts.products(self.shape.head)
        return Work((*flops, 2.0 * batch * ends), (*read, weights[-1]))

    def prefill(self, batch: int, length: int) -> Work:
        """`length` tokens at once, the head at the last only; the cache is written once."""
        weights, tokens = step_bytes(self.shape, self.weights, batch * length), batch * length
        flops, read = [], []
        for layer, size in zip(self.shape.layers, weights[:-1], strict=True):
            attention = layer.attention
            scores = attention.causal_pairs(length) * counts.pair_products(attention) if attention else 0
            cached = attention.cached * length if attention else 0
            flops += [2.0 * tokens * counts.products(layer.linears), 2.0 * batch * scores]
            read += [size, batch * cached * self.cache_bytes]
        ends = tokens * counts.products(self.shape.outer) + batch * counts.products(self.shape.head)
        return Work((*flops, 2.0 * ends), (*read, weights[-1]))


def estimate(
    shape: ModelShape, weights: Weights, devices: Sequence[Device], settings: Settings
) -> dict[str, Any]:
    """The report of bntools-cost(1)."""
    dtype = settings.dtype or _TYPES.get(shape.dtype.removeprefix("torch."), "bf16")
    cache_bytes = settings.kv_bits / 8 if settings.kv_bits else bytes_of(shape.dtype)
    pricing = Pricing(shape, weights, cache_bytes, dtype, settings.overlap)
    contexts = settings.contexts or (min(DEFAULT_CONTEXT, shape.longest or DEFAULT_CONTEXT),)
    report: dict[str, Any] = {
        "kind": "cost",
        "model": describe(shape, weights),
        "kv": {"bytes_per_token": cache_bytes * counts.cached_numbers(shape, 1), "bits": 8 * cache_bytes},
        "dtype": dtype,
        "runs": [
            _run(pricing, devices, batch, context) for context in contexts for batch in settings.batches
        ],
        "devices": {device.name: _limits(pricing, device, contexts[0]) for device in devices},
        "assumptions": _assumptions(pricing, devices, contexts),
    }
    if settings.prompt is not None and settings.generate is not None:
        report["requests"] = [
            _request(pricing, devices, batch, settings.prompt, generate=settings.generate)
            for batch in settings.batches
        ]
    return report


def describe(shape: ModelShape, weights: Weights) -> dict[str, Any]:
    """Sizes of a model."""
    first = next((layer.attention for layer in shape.layers if layer.attention), None)
    total = counts.parameters(shape)
    routed = [linear for layer in shape.layers for linear in layer.linears if linear.copies > 1]
    return {
        "family": shape.model_type, "parameters": total, "active_parameters": counts.active_parameters(shape),
        "layers": len(shape.layers), "hidden": shape.hidden, "vocabulary": shape.vocabulary,
        "heads": first.heads if first else None, "kv_heads": first.kv_heads if first else None,
        "head_dim": first.key_dim if first else None,
        "experts": routed[0].copies if routed else None, "experts_per_token": routed[0].active if routed else None,
        "windows": sum(bool(layer.attention and layer.attention.window) for layer in shape.layers),
        "weight_bytes": round(weights.total), "bits_per_weight": 8 * weights.total / total,
    }  # fmt: skip


def _run(pricing: Pricing, devices: Sequence[Device], batch: int, context: int) -> dict[str, Any]:
    shape, tokens = pricing.shape, batch * context
    prefill, decode = pricing.prefill(batch, context), pricing.decode(batch, context)
    traffic = sum(decode.read)
    kept = batch * pricing.cache_bytes * counts.cached_numbers(shape, context)
    weights = sum(step_bytes(shape, pricing.weights, batch))
    return {
        "batch": batch,
        "context": context,
        "prefill": {
            "flops": round(sum(prefill.flops)),
            "flops_dense": counts.prefill_flops(shape, batch, context, dense=True, last=True),
            "flops_all_positions": counts.prefill_flops(shape, batch, context, dense=True),
            "flops_rule": 2 * counts.active_parameters(shape) * tokens,
            "vector_ops": counts.vector_operations(shape, batch, context),
            "bytes": round(sum(prefill.read)),
            "seconds": {device.name: _time(pricing, prefill, device) for device in devices},
        },
        "decode": {
            "flops": round(sum(decode.flops)),
            "bytes_weights": round(weights),
            "bytes_kv": round(traffic - weights),
            "intensity": sum(decode.flops) / traffic,
            "tokens_per_s": {device.name: _rate(pricing, decode, device, batch) for device in devices},
        },
        "kv_bytes": round(kept),
        "memory_bytes": round(kept + pricing.weights.total),
        "fits": {
            device.name: kept + pricing.weights.total <= device.memory for device in devices if device.memory
        },
    }


def _time(pricing: Pricing, work: Work, device: Device) -> dict[str, Any]:
    seconds, bound = work.seconds(device, pricing.dtype, pricing.overlap)
    return {"value": seconds, "bound": bound}


def _rate(pricing: Pricing, work: Work, device: Device, batch: int) -> dict[str, Any]:
    seconds, bound = work.seconds(device, pricing.dtype, pricing.overlap)
    return {"value": batch / seconds, "bound": bound}


def _limits(pricing: Pricing, device: Device, context: int) -> dict[str, Any]:
    """What a device can hold, and from which batch on its units and not its memory limit decoding."""
    rate, kind = device.rate(pricing.dtype)
    room = device.memory - pricing.weights.total if device.memory else None

    def holds(length: int) -> bool:
        return room is not None and pricing.cache_bytes * counts.cached_numbers(pricing.shape, length) <= room

    def computes(batch: int) -> bool:
        work = pricing.decode(batch, context)
        return sum(work.flops) / rate >= sum(work.read) / device.bandwidth

    longest = None if room is None else last_true(holds, _LONGEST)
    first = next((1 << power for power in range(21) if computes(1 << power)), None)
    if first is not None and first > 1:
        first = last_true(lambda batch: not computes(batch), first) + 1
    return {
        "peak": rate, "peak_type": kind, "bandwidth": device.bandwidth, "ridge": rate / device.bandwidth,
        "max_context": longest, "compute_bound_batch": first, "source": device.source, "date": device.date,
    }  # fmt: skip


def last_true(holds: Any, most: int) -> int:
    """The largest count up to `most` for which a condition holds that fails for all larger ones; 0 for none."""
    if holds(most):
        return most
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _request(
    pricing: Pricing, devices: Sequence[Device], batch: int, prompt: int, *, generate: int
) -> dict[str, Any]:
    """Prefill of a prompt and `generate` steps, each at its own context."""
    steps = [pricing.decode(batch, prompt + step) for step in range(1, generate)]
    prefill = pricing.prefill(batch, prompt)
    times = {}
    for device in devices:
        first = prefill.seconds(device, pricing.dtype, pricing.overlap)[0]
        rest = sum(step.seconds(device, pricing.dtype, pricing.overlap)[0] for step in steps)
        times[device.name] = {
            "first_token": first, "decode": rest, "total": first + rest,
            "tokens_per_s": batch * generate / (first + rest),
        }  # fmt: skip
    return {
        "batch": batch, "prompt": prompt, "generate": generate,
        "flops": round(sum(prefill.flops) + sum(sum(step.flops) for step in steps)),
        "bytes": round(sum(prefill.read) + sum(sum(step.read) for step in steps)),
        "seconds": times,
    }  # fmt: skip


def _assumptions(pricing: Pricing, devices: Sequence[Device], contexts: Sequence[int]) -> list[str]:
    shape = pricing.shape
    lines = [
        "ceilings from peak rates, not predictions: kernels reach a part of them",
        "FLOPs are two a multiply-add of matrix products; norms, rotary, softmax and activations are vector_ops",
        "prefill predicts after the last token only; activations stay on the chip",
        "all of a step at once"
        if pricing.overlap
        else "one part of a layer after the other (--overlap: at once)",
    ]
    if any(linear.copies > 1 for layer in shape.layers for linear in layer.linears):
        lines.append("tokens choose experts uniformly and independently")
    if any(layer.attention and layer.attention.latent for layer in shape.layers):
        lines.append("latent attention decodes in the cheaper order; its cache holds the latent numbers")
    if shape.longest and max(contexts) > shape.longest:
        lines.append(f"a context of {max(contexts)} is beyond the {shape.longest} the model was made for")
    for device in devices:
        kind = device.rate(pricing.dtype)[1]
        if kind != pricing.dtype:
            lines.append(f"{device.name} has no rate for {pricing.dtype}: that of {kind} is used")
    return [*lines, *shape.notes]
