"""An energy-based bottleneck on labelled rows: classes and concepts, beside its factors alone and linear probes."""

from __future__ import annotations

from typing import Any

import numpy as np

from bntools.core.methods.cbm import metrics
from bntools.core.methods.cbm.bottleneck import Floats
from bntools.core.methods.cbm.energy.energies import EnergyModel
from bntools.core.methods.cbm.energy.inference import marginals
from bntools.core.methods.cbm.inputs import Embeddings, Truth
from bntools.core.methods.cbm.score import check_encoder, indices_of


def score(model: EnergyModel, data: Embeddings, truth: Truth | None = None) -> dict[str, Any]:
    """The report of `eval` on an energy-based bottleneck; what needs annotations is null without them."""
    check_encoder(model.facts, model.width, data)
    y = indices_of(model.labels, data)
    prepared, posterior = model.prepare(data.x), marginals(model, data.x)
    factor = model.class_logits(prepared)
    report: dict[str, Any] = {
        "kind": "ecbm-eval", "rows": len(y), "classes": len(model.classes), "concepts": len(model.names),
        "method": "ecbm", "coupling": list(model.coupling),
        "accuracy": metrics.mean_error(posterior.classes.argmax(1) == y),
        "log_loss": float(-np.log(np.maximum(posterior.classes[np.arange(len(y)), y], 1e-12)).mean()),
        "steps": {"mean": float(posterior.steps.mean()), "most": int(posterior.steps.max())},
        "baselines": {
            "without_concepts": metrics.accuracy(factor, y),
            **{name: metrics.accuracy(prepared @ weight.T + shift, y)
               for name, (weight, shift) in model.baselines.items() if name != "concept_probe"},
        },
        "concept_accuracy": None, "true_concepts": None,
    }  # fmt: skip
    return report | (_annotated(model, data.x, y, truth, posterior.concepts) if truth is not None else {})


def _annotated(model: EnergyModel, x: Floats, y: Any, truth: Truth, belief: Floats) -> dict[str, Any]:
    mine, present = truth.of(model.names)
    if not len(mine):
        return {}
    known = np.full((len(x), len(model.names)), -1, np.int8)
    known[:, mine] = present
    evidence, prepared = marginals(model, x, known), model.prepare(x)
    odds = {"joint": belief[:, mine] - 0.5, "without_classes": model.concept_odds(prepared)[:, mine]}
    if "concept_probe" in model.baselines:
        weight, shift = model.baselines["concept_probe"]
        odds["concept_probe"] = (prepared @ weight.T + shift)[:, mine]
    odds["always_absent"] = np.full(odds["joint"].shape, -1.0)
    seen = present >= 0
    right = {name: ((value > 0) == (present > 0)) | ~seen for name, value in odds.items()}
    return {
        "annotated": len(mine),
        "concept_accuracy": {name: float(hit[seen].mean()) for name, hit in right.items()},
        "all_concepts_right": {name: metrics.mean_error(hit.all(1)) for name, hit in right.items()},
        "true_concepts": metrics.mean_error(evidence.classes.argmax(1) == y),
    }  # fmt: skip
