"""The --work folders of a run, each begun with what its units depend on."""

from __future__ import annotations

from typing import Any

from bntools.core.model.identity import source_identity
from bntools.core.work.folder import Work, digest_of_json, identity
from bntools.tools.quantize.plan import Task
from bntools.tools.quantize.settings import RunOptions
from bntools.tools.quantize.windows import Calibration


def of_fixed(task: Task, text: Calibration, run: RunOptions) -> tuple[Work | None, Work | None]:
    """The folders of the sweep and of the coding. A sweep serves every size: what is coded from it lies inside its
    folder, in one of its own for each set of settings."""
    if not run.work:
        return None, None
    coding = identity(
        "quantize", source_identity(task.model), settings=task.settings.as_json(), seed=task.settings.seed,
        calibration=text.identity(), device=run.device, shard=str(run.shard) if run.shard else None,
    )  # fmt: skip
    if not (text and task.settings.sweeps):
        return None, Work(run.work, coding)
    swept = Work(run.work, _sweep_identity(task, text, run, "quantize, a sweep", {}))
    return swept, Work(f"{run.work}/coded-{digest_of_json(coding)[:12]}", coding)


def of_entropy(task: Task, text: Calibration, run: RunOptions) -> Work | None:
    """The folder of the sweep for the entropy code."""
    if not run.work:
        return None
    sides = {"two_sided": task.entropy.two_sided}
    return Work(run.work, _sweep_identity(task, text, run, "quantize --code entropy", sides))


def _sweep_identity(
    task: Task, text: Calibration, run: RunOptions, tool: str, settings: dict[str, Any]
) -> dict[str, Any]:
    """What a sweep depends on; the size asked is not in it, so other sizes start from it."""
    return identity(
        tool, source_identity(task.model), settings={**settings, "tensors": [item.name for item in task.chosen]},
        seed=task.settings.seed, calibration=text.identity(), device=run.device,
    )  # fmt: skip
