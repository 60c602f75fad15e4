"""A trained autoencoder as an artifact: encode rows to the axes that matter, decode, sample, read and write it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bntools.core.artifact.reader import Artifact
from bntools.core.artifact.writer import Writer
from bntools.core.errors import bad_input
from bntools.core.methods.vae.mixture import Mixture
from bntools.core.methods.vae.network import Autoencoder, architecture_of
from bntools.core.methods.vae.scores import Prior

Floats = NDArray[np.float32]

KIND = "vae"
_BATCH = 1000
_MIXTURE = ("weights", "means", "roots")


@dataclass
class LatentModel:
    """Rows [n, *shape] to codes and back.

    Rows enter the network as (x - mean) / scale, flat ones in the order of `columns` (those left out are constant:
    their mean). prior: of all axes [L]. order [L]: axes by relevance; the first `relevant` are in use. variance: of the
    decoder, in units of scale^2. mixture: what codes are sampled from, None for the prior. facts: of the artifact.
    """

    net: Autoencoder
    shape: tuple[int, ...]
    mean: Tensor
    scale: float
    columns: Tensor | None
    prior: Prior
    order: Tensor
    relevant: int
    variance: float
    mixture: Mixture | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    label: str = "the autoencoder"

    @property
    def axes(self) -> Tensor:
        """The axes in use, best first."""
        return self.order[: self.relevant]

    def prepare(self, x: Floats | Tensor) -> Tensor:
        """Rows as the network takes them, [n, *arch.shape]."""
        flat = torch.as_tensor(x, dtype=torch.float32).reshape(len(x), -1)
        flat = (flat - self.mean) / self.scale
        if self.columns is not None:
            flat = flat[:, self.columns]
        return self._padded(flat)

    def _padded(self, flat: Tensor) -> Tensor:
        pad = int(self.facts.get("pad", 0))
        x = flat.reshape(-1, *self.shape) if pad else flat
        return torch.nn.functional.pad(x, (pad,) * 4) if pad else x.reshape(len(flat), *self.net.arch.shape)

    def restore(self, x: Tensor) -> Tensor:
        """The network's rows in the units and the shape of the input."""
        pad = int(self.facts.get("pad", 0))
        if pad:
            x = x[..., pad:-pad, pad:-pad]
        flat = x.reshape(len(x), -1)
        if self.columns is not None:
            full = torch.zeros(len(x), len(self.mean))
            full[:, self.columns] = flat
            flat = full
        return (flat * self.scale + self.mean).reshape(len(x), *self.shape)

    @torch.no_grad()
    def encode(self, x: Floats | Tensor) -> Tensor:
        """Mean codes [n, relevant] of rows, best axis first."""
        parts = [self.net.encode(self.prepare(x[at : at + _BATCH]))[0] for at in range(0, len(x), _BATCH)]
        return torch.cat(parts)[:, self.axes] if parts else torch.zeros(0, self.relevant)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Rows [n, *shape] of codes [n, relevant], the other axes at the prior's mean."""
        z = self.prior.mean.expand(len(codes), -1).clone()
        z[:, self.axes] = codes
        return torch.cat([self.restore(self.net.decode(part)) for part in z.split(_BATCH)])

    def sample(self, count: int, seed: int, from_prior: bool = False) -> Tensor:
        """Rows [count, *shape] drawn from the mixture of codes or the prior; images of bytes are cut to [0, 1]."""
        generator = torch.Generator().manual_seed(seed)
        if self.mixture is not None and not from_prior and self.relevant:
            return self._cut(self.decode(self.mixture.sample(count, generator)))
        noise = torch.randn(count, self.relevant, generator=generator)
        codes = self.prior.mean[self.axes] + self.prior.variance[self.axes].sqrt() * noise
        return self._cut(self.decode(codes))

    def _cut(self, x: Tensor) -> Tensor:
        return x.clamp(0, 1) if self.facts.get("bytes") else x


def write(out: Writer, model: LatentModel) -> None:
    """Put a model into a writer of kind `vae`."""
    facts = {**model.facts, "arch": model.net.arch.facts(), "shape": list(model.shape), "scale": model.scale,
             "relevant": model.relevant, "variance": model.variance}  # fmt: skip
    out.describe("vae", facts)
    for name, tensor in model.net.state_dict().items():
        if tensor.is_floating_point():
            out.add(f"net.{name}", tensor)
    out.add("input.mean", model.mean)
    if model.columns is not None:
        out.add("input.columns", model.columns)
    out.add("prior.mean", model.prior.mean)
    out.add("prior.variance", model.prior.variance)
    out.add("axes.order", model.order)
    if model.mixture is not None:
        for name in _MIXTURE:
            out.add(f"mixture.{name}", getattr(model.mixture, name))


def read(source: Artifact) -> LatentModel:
    """The model of an artifact of kind `vae`. Raises BnError (exit 3) where it is none, or damaged."""
    if source.kind != KIND:
        what = f"{source.label} is an artifact of kind {source.kind!r}, not an autoencoder"
        raise bad_input(what, "bntools ard-fit makes one")
    facts = source.json("bntools.vae", dict)
    arch = architecture_of(facts.get("arch", {}), source.label)
    net = Autoencoder(arch)
    state = {
        name: _tensor(source, f"net.{name}", tuple(tensor.shape)) if tensor.is_floating_point() else tensor
        for name, tensor in net.state_dict().items()
    }
    net.load_state_dict(state)
    try:
        shape, scale = tuple(map(int, facts["shape"])), float(facts["scale"])
        relevant, variance = int(facts["relevant"]), float(facts["variance"])
    except (KeyError, TypeError, ValueError):
        raise bad_input(f"{source.label}: metadata bntools.vae does not describe an autoencoder") from None
    columns = None
    if "input.columns" in source.entries:
        columns = _tensor(source, "input.columns", (arch.size,)).long()
    order = _tensor(source, "axes.order", (arch.dim,)).long()
    size = int(np.prod(shape))
    if sorted(order.tolist()) != list(range(arch.dim)) or not 0 <= relevant <= arch.dim or not scale > 0:
        raise bad_input(f"{source.label}: axes.order is no order of {arch.dim} axes", "is it damaged?")
    if columns is not None and not (int(columns.min()) >= 0 and int(columns.max()) < size):
        raise bad_input(
            f"{source.label}: input.columns names columns that rows of {size} lack", "is it damaged?"
        )
    prior = Prior(_tensor(source, "prior.mean", (arch.dim,)), _tensor(source, "prior.variance", (arch.dim,)))
    return LatentModel(
        net.eval(), shape, _tensor(source, "input.mean", (size,)), scale, columns, prior, order, relevant, variance,
        _mixture(source, relevant), facts, source.history, source.label,
    )  # fmt: skip


def check_fits(model: LatentModel, shape: tuple[int, ...], label: str) -> None:
    """Refuse rows of another shape than the model was made for (exit 3)."""
    if shape != model.shape and int(np.prod(shape)) != int(np.prod(model.shape)):
        raise bad_input(f"{label} has rows of shape {list(shape)}, {model.label} is for {list(model.shape)}")


def _mixture(source: Artifact, relevant: int) -> Mixture | None:
    if "mixture.weights" not in source.entries:
        return None
    count = source.entries["mixture.weights"].shape[0]
    shapes = {"weights": (count,), "means": (count, relevant), "roots": (count, relevant, relevant)}
    return Mixture(**{name: _tensor(source, f"mixture.{name}", shape) for name, shape in shapes.items()})


def _tensor(source: Artifact, name: str, shape: tuple[int, ...]) -> Tensor:
    if name not in source.entries or source.entries[name].shape != shape:
        raise bad_input(f"{source.label} holds no {name} {list(shape)}", "is it damaged?")
    tensor = source.tensor(name)
    if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        raise bad_input(f"{source.label}: {name} holds numbers that are not finite", "is it damaged?")
    return tensor
