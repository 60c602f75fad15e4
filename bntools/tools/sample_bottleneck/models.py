"""From what the command line names to a velocity field: the embedded digits, a Gaussian, a folder of diffusers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bntools.core.diffusion import digits, gaussian, pipeline
from bntools.core.diffusion.caches import parse_cache
from bntools.core.diffusion.field import Field
from bntools.core.diffusion.planned import PlannedField, planned_digits
from bntools.core.diffusion.rettention import parse_attention
from bntools.core.diffusion.transformer import Guidance, TransformerField
from bntools.core.errors import bad_input, usage
from bntools.kernels.spectral.handoff import Spectrum

DIGITS = digits.NAME
_GUIDANCE = 4.5
"""Of models with prompts, where --guidance does not say; the embedded model has its own."""


@dataclass(frozen=True)
class ModelRequest:
    """model: a folder, `digits:` or `gaussian:FILE`. size: pixels (height, width)."""

    model: str
    prompts: tuple[str, ...] = ()
    negative: str = ""
    cond: str | None = None
    size: tuple[int, int] | None = None
    frames: int = 17
    count: int | None = None
    guidance: float | None = None
    dtype: str = "float32"
    device: str = "cpu"
    cache: str = "none"
    attention: str | None = None
    spectrum: str | None = None


@dataclass
class OpenedModel:
    """field; count: samples; labels of the digits; vae: autoencoder of a pipeline, if any."""

    field: Field
    count: int
    labels: Tensor | None = None
    vae: Any = None

    def pixels(self, x: Tensor) -> Tensor | None:
        """Pictures [N, C, (F,) H, W] in [-1, 1]: decoded, the samples themselves, or None without an autoencoder."""
        if isinstance(self.field, TransformerField) and self.labels is None:
            with torch.no_grad():
                return None if self.vae is None else self.field.adapter.decode(self.vae, x).float()
        low, high = (-1.0, 1.0) if self.labels is not None else (float(x.min()), float(x.max()))
        return (x - low) / max(high - low, 1e-12) * 2 - 1


def open_for_plan(request: ModelRequest) -> Field:
    """Configs only. Raises BnError as `open_field`."""
    if request.model == DIGITS:
        return planned_digits(1 if request.guidance == 1.0 else 2)
    if request.model.startswith(gaussian.PREFIX):
        return gaussian.open_gaussian(request.model.removeprefix(gaussian.PREFIX))
    facts = pipeline.read_facts(request.model)
    adapter = facts.adapter
    two = adapter.guided and request.guidance != 1.0
    return PlannedField(facts, adapter.shape(_size(request, facts), request.frames), 2 if two else 1)


def open_field(request: ModelRequest) -> OpenedModel:
    """Raises BnError: exit 2 for options that do not fit the model, 3 for damage, 5 without the library diffusers."""
    if request.model == DIGITS:
        opened = _digits(request)
    elif request.model.startswith(gaussian.PREFIX):
        _refuse(request, "a Gaussian", "prompts", "cond", "guidance", "size")
        field = gaussian.open_gaussian(request.model.removeprefix(gaussian.PREFIX))
        opened = OpenedModel(field, request.count or 64)
    else:
        opened = _folder(request)
    if request.spectrum is not None:
        opened.field.spectrum = read_spectrum(request.spectrum, opened.field)
    return opened


def _refuse(request: ModelRequest, what: str, *names: str) -> None:
    options = {"prompts": "--prompt", "cond": "--cond", "guidance": "--guidance", "size": "--size"}
    for name in names:
        if getattr(request, name) not in (None, ()):
            raise usage(f"{options[name]} means nothing to {what}")


def _digits(request: ModelRequest) -> OpenedModel:
    _refuse(request, "the embedded model", "prompts", "size")
    labels = digits.parse_labels(request.cond or "all", request.count)
    field = digits.DigitField(
        digits.FOLDER, labels, digits.GUIDANCE if request.guidance is None else request.guidance
    )
    _equip(field, request)
    field.transformer.to(request.device)
    return OpenedModel(field, len(labels), labels)


def _folder(request: ModelRequest) -> OpenedModel:
    facts = pipeline.read_facts(request.model)
    adapter = facts.adapter
    shape = adapter.shape(_size(request, facts), request.frames)
    clock = facts.clock(adapter, shape)
    if (request.cond is None) == (not request.prompts):
        raise usage("give prompts or --cond FILE, one of them", '--prompt "a red fox"')
    dtype = getattr(torch, request.dtype)
    scale = _GUIDANCE if request.guidance is None else request.guidance
    if request.cond is not None:
        condition, negative = pipeline.read_conditions(request.cond, adapter)
        vae = pipeline.load_autoencoder(facts, dtype)
    else:
        opposite = request.negative if adapter.guided and scale != 1.0 else None
        pipe = pipeline.load_pipeline(facts, dtype)
        vae = pipe.vae
        condition, negative = pipeline.encoded(pipe, adapter, list(request.prompts), opposite)
    count = request.count or len(next(iter(condition.values())))
    if negative is not None and len(next(iter(negative.values()))) > 1:
        negative = pipeline.repeated(negative, count)
    transformer = pipeline.load_transformer(facts, dtype, request.device)
    field = TransformerField(
        facts.label, transformer, adapter, shape=shape, condition=pipeline.repeated(condition, count),
        guidance=Guidance(scale, negative if adapter.guided else None), clock=clock,
    )  # fmt: skip
    _equip(field, request)
    return OpenedModel(field, count, None, vae)


def _equip(field: TransformerField, request: ModelRequest) -> None:
    """Feature cache and attention of the transformer."""
    field.use_cache(parse_cache(request.cache))
    if request.attention is not None:
        field.use_attention(parse_attention(request.attention))


def _size(request: ModelRequest, facts: pipeline.PipelineFacts) -> tuple[int, int]:
    """Pixels asked for, or what the transformer was made for."""
    if request.size is not None:
        return request.size
    adapter, config = facts.adapter, facts.config
    side = int(config.get("sample_size") or (config.get("sample_height") or 0)) * adapter.space
    width = int(config.get("sample_width") or 0) * adapter.space
    return (side or 1024, width or side or 1024)


def read_spectrum(path: str, field: Field) -> Spectrum:
    """Tensors `variance` and, if any, `mean` [1 or C, H, W] of DCT coefficients. Raises BnError (exit 3)."""
    from bntools.core.artifact.reader import open_path

    with open_path(Path(path)) as file:
        if "variance" not in file.names():
            raise bad_input(
                f"{path} has no tensor variance", "mean and variance of DCT coefficients [C, H, W]"
            )
        variance = file.tensor("variance").double()
        mean = file.tensor("mean").double() if "mean" in file.names() else torch.zeros_like(variance)
    if variance.shape[-2:] != field.size or mean.shape != variance.shape or bool((variance < 0).any()):
        raise bad_input(f"{path}: variance {list(variance.shape)} does not fit {list(field.shape)}")
    return Spectrum(mean, variance)
