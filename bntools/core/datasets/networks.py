"""Small networks by a short name, and any module as one flat vector of parameters."""

from __future__ import annotations

import importlib.util
import inspect
import itertools
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bntools.core.datasets.labelled import LabelledRows
from bntools.core.errors import BnError, bad_input, usage
from bntools.kernels.counter_random import normals

_WEIGHT_STREAM = 100
"""Tensor number i of a network is drawn from stream _WEIGHT_STREAM + i of the seed."""


def is_named(spec: str) -> bool:
    """Whether a network is built here from its name, `fc:W,...` or `lenet`."""
    return spec == "lenet" or spec.startswith("fc:")


def named(
    spec: str, shape: tuple[int, ...], classes: int, activation: type[nn.Module] = nn.ReLU
) -> nn.Module:
    """`fc:200,200`, hidden layers of these widths; or `lenet`, two convolutions and three layers.

    shape: of one input. Raises BnError (exit 2) for a name that is neither, or inputs that do not fit.
    """
    if spec == "lenet":
        return _lenet(shape, classes)
    match = re.fullmatch(r"fc:(\d+(?:,\d+)*)", spec)
    if not match or "0" in (widths := match[1].split(",")):
        raise usage(
            f"no network {spec!r}", "fc:200,200 or lenet, a Python file's function, a model directory"
        )
    sizes = [int(np.prod(shape)), *map(int, widths)]
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], classes))


def _lenet(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Convolutions of 6 and 16 maps of 5 x 5, each halved by a maximum, then 120, 84: 44,426 weights for MNIST."""
    channels, height, width = (1, *shape) if len(shape) == 2 else shape if len(shape) == 3 else (0, 0, 0)
    if min(height, width) < 16:
        raise usage(f"lenet needs images of 16 x 16 or more, not inputs {list(shape)}", "--model fc:200,200")
    after = 16 * (((height - 4) // 2 - 4) // 2) * (((width - 4) // 2 - 4) // 2)
    return nn.Sequential(
        nn.Unflatten(1, (1, height)) if len(shape) == 2 else nn.Identity(),
        nn.Conv2d(channels, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(after, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, classes),
    )  # fmt: skip


@torch.no_grad()
def initialize(module: nn.Module, seed: int) -> None:
    """Weights N(0, 2 / inputs) (He et al. 2015), biases 0: functions of the seed alone, whatever torch's version."""
    for index, parameter in enumerate(module.parameters()):
        if parameter.ndim < 2:
            parameter.zero_()
            continue
        fan_in = parameter[0].numel()
        values = normals(seed, _WEIGHT_STREAM + index, 0, parameter.numel())
        values *= np.float32((2 / fan_in) ** 0.5)
        parameter.copy_(torch.from_numpy(values).view(parameter.shape))


def from_file(spec: str) -> Callable[[tuple[int, ...], int], nn.Module]:
    """The function `FILE.py:NAME`, which returns a torch module; it may take the shape of an input and the classes.

    This runs the file. Raises BnError: exit 2 when there is no such file or function, 3 when it fails.
    """
    path, _, name = spec.rpartition(":")
    if not path.endswith(".py") or not Path(path).is_file():
        raise usage(f"no network {spec!r}", "fc:200,200 or lenet, or FILE.py:FUNCTION")
    loader = importlib.util.spec_from_file_location("bntools_user_model", path)
    assert loader is not None
    assert loader.loader is not None
    module = importlib.util.module_from_spec(loader)
    try:
        loader.loader.exec_module(module)
    except Exception as error:  # a stranger's file may raise anything
        raise bad_input(f"{path}: {type(error).__name__}: {str(error)[:160]}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise usage(
            f"{path} has no function {name!r}", f"{path}:build, a function that returns a torch module"
        )

    def build(shape: tuple[int, ...], classes: int) -> nn.Module:
        takes = len(inspect.signature(function).parameters)
        try:
            built = function(shape, classes) if takes >= 2 else function()
        except Exception as error:
            raise bad_input(f"{spec}: {type(error).__name__}: {str(error)[:160]}") from error
        if not isinstance(built, nn.Module):
            raise bad_input(f"{spec} returned a {type(built).__name__}, not a torch module")
        return built

    return build


class FlatParameters:
    """A module whose chosen parameters are views of one vector `theta` [size] float32; the others are frozen.

    chosen: a regular expression searched in parameter names, None for all. `spans` has (name, start, stop) of
    each. Writing to theta changes the module. Raises BnError (exit 2) when nothing is chosen.
    """

    def __init__(self, module: nn.Module, chosen: str | None = None) -> None:
        try:
            matches = re.compile(chosen or "").search
        except re.error as error:
            raise usage(
                f"--modules {chosen!r} is no regular expression: {error}", "'q_proj|v_proj'"
            ) from None
        self.module = module
        self.parameters: list[nn.Parameter] = []
        self.spans: list[tuple[str, int, int]] = []
        end = 0
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(matches(name) is not None)
            if parameter.requires_grad:
                self.spans.append((name, end, end := end + parameter.numel()))
                self.parameters.append(parameter)
        if not self.parameters:
            names = ", ".join(name for name, _ in list(module.named_parameters())[:3])
            raise usage(f"--modules {chosen!r} matches no parameter", f"names are like {names}")
        self.theta = torch.empty(end)
        for parameter, (_, start, stop) in zip(self.parameters, self.spans, strict=True):
            view = self.theta[start:stop].view(parameter.shape)
            view.copy_(parameter.detach())
            parameter.data = view

    @property
    def size(self) -> int:
        return self.theta.numel()

    def layers(self) -> list[tuple[int, int]]:
        """Start and stop of each layer: the parameters one module owns, where they lie together."""
        found: dict[str, tuple[int, int]] = {}
        for name, start, stop in self.spans:
            owner = name.rpartition(".")[0]
            before = found.get(owner)
            if before is not None and before[1] != start:
                owner, before = name, None
            found[owner] = (before[0] if before else start, stop)
        return list(found.values())

    def named(self) -> Iterable[tuple[str, Tensor]]:
        """The chosen parameters by name, as views of theta."""
        for parameter, (name, _, _) in zip(self.parameters, self.spans, strict=True):
            yield name, parameter.detach()


def standardized(x: NDArray, mean: float, std: float) -> Tensor:
    """(x - mean) / std as float32."""
    return torch.from_numpy(x).to(torch.float32, copy=True).sub_(mean).mul_(1 / std)


@torch.no_grad()
def accuracy(module: nn.Module, rows: LabelledRows, mean: float, std: float, batch: int = 1000) -> float:
    """Share of rows whose largest output is their label; the module is put into evaluation mode."""
    module.eval()
    right = 0
    for start in range(0, len(rows), batch):
        output = module(standardized(rows.x[start : start + batch], mean, std))
        right += int((output.argmax(1).numpy() == rows.y[start : start + batch]).sum())
    return right / len(rows)


def check_output(module: nn.Module, x: Tensor, classes: int) -> None:
    """Refuse a network that does not give one number a class. Raises BnError (exit 3)."""
    try:
        with torch.no_grad():
            shape = tuple(module(x).shape)
    except (RuntimeError, ValueError, TypeError) as error:
        raise BnError(
            f"the network does not take inputs {list(x.shape)}: {str(error)[:160]}", "", 3
        ) from error
    if shape != (len(x), classes):
        raise BnError(f"the network gives {list(shape)} for {len(x)} inputs of {classes} classes", "", 3)
