"""The artifact of kind motif: writing a bottleneck over sequences and reading it back."""

from __future__ import annotations

import numpy as np
import torch

from bntools.core.artifact.reader import Artifact
from bntools.core.artifact.writer import Writer
from bntools.core.errors import bad_input
from bntools.core.methods.cbm.file import add, array, floats, lines
from bntools.core.methods.cbm.sequence.model import CHANNEL, SequenceModel

KIND = "motif"
_PLAIN = ("vectors", "mean", "std")


def write(out: Writer, model: SequenceModel) -> None:
    """Add a model's tensors and metadata to an open writer of kind `motif`."""
    for name in _PLAIN:
        add(out, f"concept.{name}", getattr(model, name))
    for name, value in model.parameters.items():
        add(out, f"channel.{name}" if name in CHANNEL else f"head.{name}", value.numpy())
    for name, (weight, shift) in model.baselines.items():
        add(out, f"baseline.{name}.weight", weight)
        add(out, f"baseline.{name}.bias", shift)
    add(out, "class.label", model.labels)
    for name, values in (("concepts.txt", model.names), ("classes.txt", model.classes)):
        out.files[name] = "\n".join(" ".join(value.splitlines()) for value in values).encode()
    facts = {"normalize": model.normalize, "paper": model.paper, "temperature": model.temperature}
    out.describe(KIND, {**model.facts, **facts})


def read(source: Artifact) -> SequenceModel:
    """The model of an artifact. Raises BnError (exit 3) where it is of another kind or does not fit together."""
    if source.kind != KIND:
        raise bad_input(
            f"{source.label} is of kind {source.kind}, not {KIND}", "bntools cbm-build --method motif"
        )
    facts = source.json(f"bntools.{KIND}", dict)
    temperature = facts.get("temperature", 1.0)
    if not isinstance(temperature, int | float) or not temperature > 0:
        raise bad_input(f"{source.label}: its temperature is no positive number", "build it again")
    arrays = {name: floats(source, f"channel.{name}") for name in CHANNEL}
    arrays |= {name: floats(source, f"head.{name}") for name in ("weight", "bias")}
    others = [name for name in source.names() if name.startswith("baseline.") and name.endswith(".weight")]
    maps = {
        name.removesuffix(".weight"): (
            floats(source, name),
            floats(source, name.removesuffix("weight") + "bias"),
        )
        for name in others
    }
    model = SequenceModel(
        **{name: floats(source, f"concept.{name}") for name in _PLAIN},
        parameters={name: torch.from_numpy(value.astype(np.float32)) for name, value in arrays.items()},
        names=lines(source, "concepts.txt"), classes=lines(source, "classes.txt"), labels=array(source, "class.label"),
        normalize=bool(facts.get("normalize")), paper=bool(facts.get("paper")), temperature=float(temperature),
        baselines={name.removeprefix("baseline."): value for name, value in maps.items()}, facts=facts,
    )  # fmt: skip
    _check(model, source.label)
    return model


def _check(model: SequenceModel, label: str) -> None:
    count, classes = len(model.names), len(model.classes)
    sizes = {**dict.fromkeys(CHANNEL, (count,)), "weight": (classes, count), "bias": (classes,)}
    good = all(tuple(model.parameters[name].shape) == shape for name, shape in sizes.items())
    good = good and model.vectors.ndim == 2 and len(model.vectors) == count > 0 and classes > 0
    good = good and model.mean.shape == model.std.shape == (count,) and model.labels.shape == (classes,)
    good = good and all(
        w.shape == (classes, count) and b.shape == (classes,) for w, b in model.baselines.values()
    )
    if not good or not all(torch.isfinite(value).all() for value in model.parameters.values()):
        raise bad_input(f"{label}: its tensors do not fit together", "was it edited by hand? build it again")
