"""Parameters, FLOPs and cache of a model's shape: closed forms, exact integers."""

from __future__ import annotations

from fractions import Fraction

from bntools.core.architecture.shapes.shape import AttentionShape, LayerShape, LinearShape, ModelShape

_SOFTMAX, _NORM, _ROTARY, _ACTIVATION = 5, 4, 3, 4  # operations an element, a convention


def parameters(shape: ModelShape) -> int:
    """All parameters, a tied head counted once."""
    tables = sum(rows * width for rows, width in shape.embeddings)
    linears = sum(linear.parameters for linear in (*shape.outer, *shape.head))
    if shape.tied:
        linears -= shape.head[-1].inputs * shape.head[-1].outputs
    layers = sum(sum(linear.parameters for linear in layer.linears) + layer.other for layer in shape.layers)
    return tables + linears + layers + shape.other


def active_parameters(shape: ModelShape) -> int:
    """Parameters that a token meets: of experts those it is routed to."""
    idle = sum(
        linear.parameters // linear.copies * (linear.copies - linear.active)
        for layer in shape.layers
        for linear in layer.linears
    )
    return parameters(shape) - idle


def products(linears: tuple[LinearShape, ...]) -> int:
    return sum(linear.products for linear in linears)


def prefill_flops(
    shape: ModelShape, batch: int, length: int, *, dense: bool = False, last: bool = False
) -> int:
    """FLOPs of matrix products over `length` tokens of `batch` sequences, two a multiply-add.

    dense: the masked half of attention counted, as a kernel that does not skip it does. last: the head at the last
    token only.
    """
    tokens = batch * length
    linear = sum(products(layer.linears) for layer in shape.layers) + products(shape.outer)
    head = products(shape.head) * (batch if last else tokens)
    scores = 0
    for layer in shape.layers:
        if layer.attention is not None:
            pairs = length * length if dense else layer.attention.causal_pairs(length)
            scores += batch * pairs * pair_products(layer.attention)
    return 2 * (tokens * linear + head + scores)


def pair_products(attention: AttentionShape) -> int:
    """Multiply-adds of one pair of a query and a key, all heads."""
    return attention.heads * (attention.key_dim + attention.value_dim)


def decode_flops(shape: ModelShape, batch: int, context: int) -> int:
    """FLOPs of the step that reads `context` tokens, its own included, for each of `batch` sequences."""
    total = products(shape.outer) + products(shape.head)
    total += sum(layer_step(layer, context)[0] + layer_step(layer, context)[1] for layer in shape.layers)
    return 2 * batch * total


def layer_step(layer: LayerShape, context: int) -> tuple[int, int]:
    """Multiply-adds of the linears and of the attention of a layer for one new token.

    With latent attention the cheaper of two orders: keys and values made anew of the cache, or the queries taken to
    the cache (absorbed), which then stands for keys and values.
    """
    linears, attention = products(layer.linears), layer.attention
    if attention is None:
        return linears, 0
    seen = attention.seen(context)
    plain = seen * pair_products(attention)
    if attention.latent is None:
        return linears, plain
    expand = next(linear.products for linear in layer.linears if linear.name == "kv_b_proj")
    absorbed = absorbed_step(attention, seen)
    rest = linears - expand
    return min((rest + expand, plain + (seen - 1) * expand), (rest, absorbed), key=sum)


def absorbed_step(attention: AttentionShape, seen: int) -> int:
    """Multiply-adds of latent attention in absorbed form: queries and outputs through kv_b, scores on the cache."""
    assert attention.latent is not None
    rank, rope, nope = attention.latent
    through = rank * (nope + attention.value_dim)
    return attention.heads * (through + seen * (2 * rank + rope))


def vector_operations(shape: ModelShape, batch: int, length: int) -> int:
    """Operations of norms, rotary embeddings, softmax and activations: rough, by a fixed count an element."""
    total = 0
    for layer in shape.layers:
        total += _NORM * layer.normed * length
        if layer.attention is not None:
            heads = layer.attention.heads
            total += _SOFTMAX * heads * layer.attention.causal_pairs(length)
            total += _ROTARY * (heads + layer.attention.kv_heads) * layer.attention.key_dim * length
        total += (
            _ACTIVATION
            * length
            * sum(
                linear.active * linear.inputs for linear in layer.linears if linear.name.endswith("down_proj")
            )
        )
    return batch * (total + _NORM * shape.hidden * length)


def cached_numbers(shape: ModelShape, length: int) -> int:
    """Numbers in the cache of one sequence of `length` tokens: windows cap it, latent layers keep their rank."""
    return sum(
        layer.attention.cached * layer.attention.seen(length)
        for layer in shape.layers
        if layer.attention is not None and not layer.shares_cache
    )


def distinct_share(copies: int, active: int, tokens: int) -> float:
    """Expected share of experts that `tokens` tokens touch, each routed to `active` of `copies` uniformly."""
    if active >= copies:
        return 1.0
    return float(1 - (1 - Fraction(active, copies)) ** min(tokens, 10_000))
