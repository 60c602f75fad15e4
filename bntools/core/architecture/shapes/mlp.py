"""The MLP of a layer: dense, or a router and experts of which a token uses some."""

from __future__ import annotations

from bntools.core.architecture.shapes.config import Config
from bntools.core.architecture.shapes.families import Traits, decides
from bntools.core.architecture.shapes.shape import LinearShape

INNER = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
CHOSEN = ("num_experts_per_tok", "num_experts_per_token")
Part = tuple[tuple[LinearShape, ...], int]


def mlp_part(config: Config, traits: Traits, hidden: int, index: int) -> Part:
    """Linears and other parameters of the MLP of layer `index`."""
    if traits.experts and _is_sparse(config, traits, index):
        return _mixture(config, traits, hidden)
    inner = config.size(*INNER, default=_inner(config, traits, hidden))
    extra = {"apertus": 2}.get(str(config.get("model_type")), 0)  # two learned numbers of its activation
    return _pair(hidden, inner, traits.gated, bias=decides(config, traits.mlp_bias)), extra


def _inner(config: Config, traits: Traits, hidden: int) -> int | None:
    if config.get("model_type") == "mpt":
        return int(config.get("expansion_ratio", default=4)) * hidden
    return traits.inner_factor * hidden or None


def _pair(hidden: int, inner: int, gated: bool, bias: bool, prefix: str = "") -> tuple[LinearShape, ...]:
    gate = (LinearShape(f"{prefix}gate_proj", hidden, inner, bias),) if gated else ()
    return (
        *gate,
        LinearShape(f"{prefix}up_proj", hidden, inner, bias),
        LinearShape(f"{prefix}down_proj", inner, hidden, bias),
    )


def _is_sparse(config: Config, traits: Traits, index: int) -> bool:
    kinds = config.texts("mlp_layer_types")
    if traits.experts == "first_dense":
        if index < len(kinds):
            return kinds[index] == "sparse"
        return index >= config.get("first_k_dense_replace", default=0)
    if traits.experts == "sparse_step":
        dense = config.get("mlp_only_layers", default=[])
        step = config.size("decoder_sparse_step", default=1)
        return index not in dense and config.size(*EXPERTS) > 0 and (index + 1) % step == 0
    return True


def _mixture(config: Config, traits: Traits, hidden: int) -> Part:
    experts, chosen = config.size(*EXPERTS), config.size(*CHOSEN)
    inner = config.size("moe_intermediate_size", *INNER)
    routed = tuple(
        linear._replace(copies=experts, active=chosen)
        for linear in _pair(hidden, inner, traits.gated, traits.expert_bias, "experts.")
    )
    return (
        LinearShape("router", hidden, experts, traits.router_bias),
        *routed,
        *_shared(config, hidden, inner),
    ), 0


def _shared(config: Config, hidden: int, inner: int) -> tuple[LinearShape, ...]:
    """Experts that every token uses."""
    if config.get("model_type") == "qwen2_moe":
        shared = config.size("shared_expert_intermediate_size")
        return (*_pair(hidden, shared, True, False, "shared."), LinearShape("shared.gate", hidden, 1))
    if config.get("model_type") == "granitemoeshared":
        shared = config.get("shared_intermediate_size", default=0)
        return _pair(hidden, shared, True, False, "shared.") if shared else ()
    count = config.get("n_shared_experts", default=0)
    return _pair(hidden, inner * count, True, False, "shared.") if count else ()
