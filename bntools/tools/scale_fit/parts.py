"""Replicates of the bootstrap made apart, and joined."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bntools.core.errors import bad_input
from bntools.core.progress import Step
from bntools.core.work import array_parts
from bntools.core.work.folder import identity
from bntools.core.work.shards import Shard
from bntools.tools.scale_fit.fit import Settings, fit_scaling_law
from bntools.tools.scale_fit.laws import Array
from bntools.tools.scale_fit.runs import Runs

KIND = "scale-fit-part"


def write(
    runs: Runs, settings: Settings, shard: Shard, place: tuple[str, bool], step: Step
) -> dict[str, Any] | None:
    """Fit, and write part I of N of the replicates; place: target, and whether to replace it. Returns the manifest."""
    fit = fit_scaling_law(runs, settings, step, shard=shard)
    told = _identity(runs, settings)
    return array_parts.write(
        place[0], KIND, shard, identity=told, arrays={"samples": fit.samples}, force=place[1]
    )


def read(paths: Sequence[str], runs: Runs, settings: Settings) -> Array:
    """The replicates of all parts. Raises BnError (exit 3) where some are missing."""
    samples = array_parts.joined(array_parts.read(paths, KIND, _identity(runs, settings)), "samples")
    if len(samples) != settings.bootstrap:
        raise bad_input(
            f"{len(samples)} replicates in the parts, not {settings.bootstrap}", "make them again"
        )
    return samples


def _identity(runs: Runs, settings: Settings) -> dict[str, Any]:
    digest = hashlib.sha256(runs.loss.tobytes())
    for name, values in sorted(runs.values.items()):
        digest.update(name.encode() + values.tobytes())
    decides = {key: value for key, value in asdict(settings).items() if key not in ("threads", "level")}
    return identity("scale-fit", {"runs": digest.hexdigest()}, settings=decides)
