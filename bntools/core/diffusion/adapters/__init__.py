"""One adapter a class of transformer: what differs between models, as pure functions."""

from __future__ import annotations

from bntools.core.diffusion.adapters.adapter import Adapter
from bntools.core.diffusion.adapters.flux import Flux
from bntools.core.diffusion.adapters.pixart import PixArt
from bntools.core.diffusion.adapters.stable_diffusion import StableDiffusion3
from bntools.core.diffusion.adapters.video import CogVideoX, HunyuanVideo, LtxVideo
from bntools.core.errors import bad_input

ADAPTERS: dict[str, type[Adapter]] = {
    each.transformer: each for each in (StableDiffusion3, Flux, PixArt, LtxVideo, HunyuanVideo, CogVideoX)
}


def adapter_for(config: dict[str, object], label: str) -> Adapter:
    """The adapter of a transformer's config. Raises BnError (exit 3) for a class that has none."""
    name = str(config.get("_class_name", "a model without _class_name"))
    if name not in ADAPTERS:
        raise bad_input(f"{label}: no adapter for {name}", f"there are adapters for {', '.join(ADAPTERS)}")
    return ADAPTERS[name](config)
