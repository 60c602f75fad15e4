"""Scales of the inputs of linear weights before they are decomposed, kept beside them or fused as BitStack does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bntools.core.blockwise.blocks import input_norms, input_squares
from bntools.core.errors import usage
from bntools.core.model.model import Model
from bntools.core.progress import Progress
from bntools.core.work.array_store import Shelf
from bntools.tools.stack_compress.build import moments_of

SCALINGS = ("none", "official", "rms")
_PAPER_FLOOR = 1e-3
_FLOOR = 1e-3  # of the mean: inputs that the text hardly shows
_KNOWN = ("llama", "mistral", "qwen2")  # whose norms multiply by their weight, without an offset


@dataclass(frozen=True)
class Scales:
    """The matrix that is decomposed is W / rows * inputs: rows [out], inputs [in] float32.

    fused: the factors are in other tensors, and nothing is stored of them.
    """

    rows: Tensor
    inputs: Tensor
    fused: bool

    def stored(self) -> Tensor:
        """What the decomposed matrix is multiplied by, as float16 holds it."""
        return (1 / self.inputs).half().float()

    def undo(self, values: Tensor) -> Tensor:
        """W from the decomposed matrix."""
        return values * self.rows[:, None] / self.inputs if self.fused else values * self.stored()


def measured(
    model: Model, names: list[str], windows: Tensor, scaling: str, shelf: Shelf, device: str, progress: Progress
) -> dict[str, Tensor]:  # fmt: skip
    """Size of every input of the weights, by name: [in] float32, positive.

    `official`: mean over the windows of the 2-norm over their positions, + 0.001 (BitStack, section 3.2). `rms`: root
    mean square. Of embedding and head both take the root of the second moments' diagonal. `none`: 1.
    """
    if scaling == "none":
        return {name: torch.ones(_inputs(model, name)) for name in names}
    linears = {name: model.linears[name].module for name in names if name in model.linears}
    missing = [name for name in names if not shelf.has(f"{scaling} {name}")]
    if missing:
        with progress("measuring inputs", windows.numel()) as step:
            measure = input_norms if scaling == "official" else input_squares
            measures = measure(model, set(linears.values()), windows, device, step)
        for name in missing:
            path = linears.get(name)
            if path is None:
                value = moments_of(shelf, name).inputs.diagonal().double().sqrt()
            else:
                value = measures[path] + _PAPER_FLOOR if scaling == "official" else measures[path].sqrt()
            shelf.put(f"{scaling} {name}", [value.float().numpy()])
    return {name: torch.from_numpy(shelf.get(f"{scaling} {name}")[0]) for name in names}


def _inputs(model: Model, name: str) -> int:
    shape, linear = model.entries[name].shape, model.linears.get(name)
    return shape[0] if linear is not None and linear.transposed else shape[1]


def beside(model: Model, sizes: Mapping[str, Tensor], scaled: bool) -> dict[str, Scales]:
    """Scales stored with each weight, of geometric mean 1."""
    scales = {}
    for name, size in sizes.items():
        size = size.clamp(min=max(_FLOOR * float(size.mean()), 1e-12)) if scaled else torch.ones_like(size)
        size = (size / size.log().mean().exp()).clamp(2.0**-12, 2.0**12)  # 1 / size fits float16
        entry, linear = model.entries[name], model.linears.get(name)
        out = entry.shape[1] if linear is not None and linear.transposed else entry.shape[0]
        stored = (1 / size).half().float()
        scales[name] = Scales(torch.ones(out), 1 / stored, fused=not scaled)
    return scales


def fused(model: Model, sizes: Mapping[str, Tensor]) -> tuple[dict[str, Scales], dict[str, Tensor]]:
    """The scales as the authors' program fuses them into what comes before, and the tensors that this changes.

    Norms are divided by the scales of the linears they feed, those of q and gate; rows of up_proj by those of
    down_proj; rows of v_proj by those of o_proj where both have one shape, otherwise o_proj has no scales: so in
    every model with grouped queries. Rows of up_proj and v_proj are thereby weighted by 1 / importance.
    Raises BnError (exit 2) for other architectures.
    """
    if model.config.get("model_type") not in _KNOWN:
        raise usage(
            f"--paper knows {', '.join(_KNOWN)}, not {model.config.get('model_type')!r}", "leave --paper out"
        )
    inputs = {name: torch.ones_like(size) for name, size in sizes.items()}
    rows = {name: torch.ones(model.entries[name].shape[0]) for name in sizes}
    changed: dict[str, Tensor] = {}

    def divide(name: str, by: Tensor) -> None:
        if name in model.entries and name not in sizes:
            tensor = model.tensor(name)
            changed[name] = (tensor.float() / by).to(tensor.dtype)

    for layer in sorted({name.split(".self_attn.")[0] for name in sizes if ".self_attn." in name}):
        attention, mlp = f"{layer}.self_attn", f"{layer}.mlp"
        for norm, first, fed in (
            ("input_layernorm", f"{attention}.q_proj", [f"{attention}.{kind}_proj" for kind in "qkv"]),
            ("post_attention_layernorm", f"{mlp}.gate_proj", [f"{mlp}.gate_proj", f"{mlp}.up_proj"]),
        ):
            divide(f"{layer}.{norm}.weight", sizes[f"{first}.weight"])
            for path in fed:
                inputs[f"{path}.weight"] = sizes[f"{first}.weight"]
        pairs = [(f"{mlp}.up_proj", f"{mlp}.down_proj"), (f"{attention}.v_proj", f"{attention}.o_proj")]
        for before, after in pairs:
            if before.endswith("v_proj") and (
                model.entries[f"{before}.weight"].shape != model.entries[f"{after}.weight"].shape
            ):
                continue
            size = inputs[f"{after}.weight"] = sizes[f"{after}.weight"]
            rows[f"{before}.weight"] = size
            divide(f"{before}.bias", size)
    return {name: Scales(rows[name], inputs[name], True) for name in sizes}, changed
