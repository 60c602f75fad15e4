"""The artifact of kind ecbm: writing an energy-based bottleneck and reading it back."""

from __future__ import annotations

import numpy as np

from bntools.core.artifact.reader import Artifact
from bntools.core.artifact.writer import Writer
from bntools.core.errors import bad_input
from bntools.core.methods.cbm.energy.energies import EnergyModel
from bntools.core.methods.cbm.file import add, array, floats, lines

KIND = "ecbm"
_PAIRS = ("rows_to_classes", "rows_to_concepts")
_PLAIN = ("class_map", "concept_map", "base", "steps", "global_map")


def write(out: Writer, model: EnergyModel) -> None:
    """Add a model's tensors and metadata to an open writer of kind `ecbm`."""
    pairs = {name: getattr(model, name) for name in _PAIRS}
    for name, (weight, shift) in {
        **pairs,
        **{f"baseline.{k}": v for k, v in model.baselines.items()},
    }.items():
        add(out, f"{name}.weight", weight)
        add(out, f"{name}.bias", shift)
    for name in _PLAIN:
        add(out, name, getattr(model, name))
    add(out, "class.label", model.labels)
    for name, values in (("concepts.txt", model.names), ("classes.txt", model.classes)):
        out.files[name] = "\n".join(" ".join(value.splitlines()) for value in values).encode()
    out.describe(KIND, {**model.facts, "normalize": model.normalize, "coupling": list(model.coupling)})


def read(source: Artifact) -> EnergyModel:
    """The model of an artifact. Raises BnError (exit 3) where it is of another kind or does not fit together."""
    if source.kind != KIND:
        raise bad_input(
            f"{source.label} is of kind {source.kind}, not {KIND}", "bntools cbm-build --method ecbm"
        )
    facts = source.json(f"bntools.{KIND}", dict)
    pairs = {
        name.removesuffix(".weight"): (floats(source, name), floats(source, name.removesuffix("weight") + "bias"))
        for name in source.names() if name.endswith(".weight")
    }  # fmt: skip
    coupling = facts.get("coupling")
    good = (
        isinstance(coupling, list)
        and len(coupling) == 2
        and all(isinstance(v, int | float) for v in coupling)
    )
    if not good or not set(_PAIRS) <= set(pairs):
        raise bad_input(f"{source.label}: it lacks its couplings or maps", "build it again")
    model = EnergyModel(
        pairs.pop(_PAIRS[0]), pairs.pop(_PAIRS[1]), **{name: floats(source, name) for name in _PLAIN},
        names=lines(source, "concepts.txt"), classes=lines(source, "classes.txt"),
        labels=array(source, "class.label"), coupling=(float(coupling[0]), float(coupling[1])),
        normalize=bool(facts.get("normalize")), facts=facts,
        baselines={name.removeprefix("baseline."): value for name, value in pairs.items()},
    )  # fmt: skip
    _check(model, source.label)
    return model


def _check(model: EnergyModel, label: str) -> None:
    first, shift = model.rows_to_classes
    shapes = [first.ndim, shift.ndim, model.class_map.ndim, model.concept_map.ndim]
    good = shapes == [2, 1, 2, 2] and min(first.shape) > 0
    if good:
        (hidden, width), classes, count = first.shape, len(model.classes), len(model.names)
        pairs = (*model.rows_to_classes, *model.rows_to_concepts)
        good = [value.shape for value in pairs] == [(hidden, width), (hidden,)] * 2
        good = good and model.class_map.shape == model.global_map.shape == (classes, hidden)
        good = good and model.concept_map.shape == model.steps.shape == (count, hidden)
        good = good and model.base.shape == (hidden,)
        good = good and model.labels.shape == (classes,) and min(classes, count) > 0
        sizes = {name: count if name == "concept_probe" else classes for name in model.baselines}
        good = good and all(
            w.shape == (sizes[name], width) and b.shape == (sizes[name],)
            for name, (w, b) in model.baselines.items()
        )
    if not good or not all(
        np.isfinite(v).all() for v in (first, model.class_map, model.concept_map, model.steps)
    ):
        raise bad_input(f"{label}: its tensors do not fit together", "was it edited by hand? build it again")
