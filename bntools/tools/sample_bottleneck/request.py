"""From the command line to a model request, settings and noise."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, NamedTuple

from torch import Tensor

from bntools import options
from bntools.core.artifact.reader import Artifact, open_path
from bntools.core.diffusion.field import Field
from bntools.core.errors import bad_input, usage
from bntools.tools.sample_bottleneck import plan
from bntools.tools.sample_bottleneck.models import ModelRequest, OpenedModel
from bntools.tools.sample_bottleneck.settings import PRESETS, Settings, parse_numbers, parse_stages
from bntools.tools.sample_bottleneck.stages.sampler import Source, seeded

_STEPS, _SMALL_STEPS = 28, 16


class Request(NamedTuple):
    """model, settings but for what the model decides, the wanted speed-up, and the file of the noise."""

    model: ModelRequest
    settings: Settings
    steps: int | None
    target: float | None
    calibrate: bool
    latents: str | None
    preset_source: str | None

    def settings_for(self, field: Field) -> Settings:
        """Steps of full resolution, and with a wanted speed-up the stages that reach it."""
        small = field.kind in ("digits", "gaussian")
        settings = dataclasses.replace(
            self.settings, full_steps=self.steps or (_SMALL_STEPS if small else _STEPS)
        )
        if self.target is None:
            return settings
        low = settings.stages[0].scale if settings.stages else 0.5
        price = field.cost(field.sized(low)).flops / field.cost(field.size).flops
        if self.calibrate:
            seconds = plan.timed_costs(field, [low, 1.0], settings.batch or 1)
            price = seconds[low] / seconds[1.0]
        return plan.solve(field, settings, self.target, low=low, cost=price)

    def source(self, opened: OpenedModel) -> Source | None:
        """Noise of --latents for the start, the seed's for what is drawn later."""
        if self.latents is None:
            return None
        noise = read_noise(self.latents, (opened.count, *opened.field.shape))
        later = seeded(self.settings.seed)
        return lambda stream, rows, shape: later(stream, rows, shape) if stream else noise[rows]


def parse(session: options.Session, given: dict[str, Any]) -> Request:
    """Raises BnError (exit 2) for options that say nothing or contradict each other."""
    for name, default in (("depth", None), ("temperature", 1.0), ("top_p", 1.0)):
        if given.get(name, default) != default:
            raise usage(
                f"--{name.replace('_', '-')} is of the next-scale model", "bntools sample-bottleneck var: ..."
            )
    prompts = (*given["prompts"], *_lines(given["prompt_file"]))
    preset = PRESETS[given["preset"]] if given["preset"] else None
    if preset and given["method"] != "bottleneck":
        raise usage("--preset is of --method bottleneck", f"--method bottleneck --preset {given['preset']}")
    if given["target_speedup"] and (given["stages"] or given["sigmas"] or given["method"] != "spectral"):
        raise usage(
            "--target-speedup chooses stages and transitions of --method spectral", "leave out --stages"
        )
    stages = parse_stages(given["stages"]) if given["stages"] else preset.stages if preset else None
    settings = Settings(
        method=given["method"], stages=stages, bounds=parse_numbers("--sigmas", given["sigmas"]), high=given["high"],
        strengths=parse_numbers("--strengths", given["strengths"]) or (preset.strengths if preset else None),
        shifts=parse_numbers("--shifts", given["shifts"]) or (preset.shifts if preset else None),
        space=given["space"], resize=given["resize"], c=given["c"], solver=given["solver"], delta=given["delta"],
        seed=session.seed, batch=given["batch"],
    )  # fmt: skip
    model = ModelRequest(
        model=given["model"], prompts=prompts, negative=given["negative"], cond=given["cond"],
        size=_size(given["size"]), frames=given["frames"], count=given["count"], guidance=given["guidance"],
        dtype=given["dtype"], device=session.torch_device(), cache=given["cache"], attention=given["attention"],
        spectrum=given["spectrum"],
    )  # fmt: skip
    return Request(
        model, settings, given["steps"], given["target_speedup"], given["calibrate"], given["latents"],
        preset.source if preset else None,
    )  # fmt: skip


def _lines(file: Any) -> list[str]:
    if file is None:
        return []
    lines = [line.strip() for line in file if line.strip()]
    if not lines:
        raise bad_input("--prompt-file holds no prompt", "one prompt a line")
    return lines


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if not match or not int(match[1]) or match[2] == "0":
        raise usage(f"--size {text} is not N or HEIGHTxWIDTH", "--size 512 or --size 480x832")
    return int(match[1]), int(match[2] or match[1])


def read_noise(path: str, shape: tuple[int, ...]) -> Tensor:
    """Tensor `noise` [N, C, (F,) H, W] of a file or of standard input. Raises BnError (exit 3) for another shape."""
    import torch

    with _standard_input() if path == "-" else open_path(path) as file:
        if "noise" not in file.names():
            raise bad_input(
                f"{file.label} has no tensor noise", "save_file({'noise': torch.randn(N, C, H, W)}, FILE)"
            )
        noise = file.tensor("noise").float()
    if tuple(noise.shape) != shape:
        raise bad_input(
            f"{file.label}: noise is {list(noise.shape)}, not {list(shape)}", f"--count {len(noise)}?"
        )
    if not torch.isfinite(noise).all():
        raise bad_input(f"{file.label}: noise has NaN or infinity")
    return noise


def _standard_input() -> Artifact:
    import os

    from bntools.core.artifact import streams

    return Artifact(os.dup(0) if streams.is_regular(0) else streams.spool(0), "standard input")


def facts_of(report: dict[str, Any]) -> dict[str, Any]:
    """`bntools.samples` of a report."""
    rows = [
        {key: row[key] for key in ("name", "tensor", "nfe", "cost", "wall")}
        for row in report.get("compare", [])
    ]
    stages = [{key: stage[key] for key in ("scale", "size", "sigmas", "nfe")} for stage in report["stages"]]
    return {
        "model": report["model"], "method": report["method"], "seed": report["seed"], "stages": stages,
        "nfe": report["totals"]["nfe"], "wall": report["totals"]["wall"], "cost": report["totals"]["cost"],
        "rows": rows,
    }  # fmt: skip
