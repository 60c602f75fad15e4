"""A regression network with a narrow code: its layers, its file, its scores, and how it fares under attack."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bntools.core.artifact.reader import Artifact
from bntools.core.artifact.writer import Writer
from bntools.core.errors import bad_input

Floats = NDArray[np.float64]
KIND = "ib-regression"
EPSILONS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
"""Sizes of the attack in standard deviations of an input, as the CS-IB paper has them."""
_HIDDEN = 128
_TENSORS = ("input_mean", "input_spread", "target_scale", "held_out_rows")


class BottleneckOutput(NamedTuple):
    """prediction [N, 1] and the law of the code: mean [N, K], log_variance [N, K]; code: the draw that was decoded."""

    prediction: Tensor
    code: Tensor
    mean: Tensor
    log_variance: Tensor


class BottleneckNetwork(nn.Module):
    """P - 128 - 128 - K - 128 - 1, ReLU but for the code; with noise of learned size on the code if asked for."""

    def __init__(self, inputs: int, code: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Linear(inputs, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, _HIDDEN), nn.ReLU()
        )
        self.mean = nn.Linear(_HIDDEN, code)
        self.log_variance = nn.Linear(_HIDDEN, code)
        self.decoder = nn.Sequential(nn.Linear(code, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, 1))

    def forward(self, x: Tensor, noise: Tensor | None = None) -> BottleneckOutput:
        """noise [N, K]: standard normal draws; None decodes the mean."""
        h = self.trunk(x)
        mean, log_variance = self.mean(h), self.log_variance(h).clamp(-10, 10)
        code = mean if noise is None else mean + noise * torch.exp(log_variance / 2)
        return BottleneckOutput(self.decoder(code), code, mean, log_variance)


class BottleneckRegression(NamedTuple):
    """A trained network with what turns rows of a table into its inputs, float32.

    names [P] of the columns, target: of the outcome; mean, spread [P], level and scale of the outcome;
    held_out: rows of the table of this digest that training never saw.
    """

    network: BottleneckNetwork
    names: list[str]
    target: str
    mean: Floats
    spread: Floats
    level: float
    scale: float
    held_out: NDArray[np.int64]
    digest: str
    facts: dict[str, Any]

    def inputs(self, x: Floats) -> Tensor:
        return torch.from_numpy(((x - self.mean) / self.spread).astype(np.float32))

    def outcome(self, y: Floats) -> Tensor:
        return torch.from_numpy(((y - self.level) / self.scale).astype(np.float32))[:, None]


def digest_of_rows(x: Floats, y: Floats) -> str:
    """sha256 of a design and its outcome: whether a table is the one that was trained on."""
    return hashlib.sha256(np.ascontiguousarray(np.hstack([x, y[:, None]])).tobytes()).hexdigest()


def scores(
    model: BottleneckRegression, x: Floats, y: Floats, epsilons: Sequence[float] = EPSILONS
) -> dict[str, Any]:
    """Root mean squared error in units of y with its standard error, and after each size of attack."""
    inputs, outcome = model.inputs(x), model.outcome(y)
    attacked = [
        {"epsilon": e, **_error(_attacked(model.network, inputs, outcome, e), model.scale)} for e in epsilons
    ]
    return {"rmse": _error(_attacked(model.network, inputs, outcome, 0.0), model.scale), "fgsm": attacked}


def _attacked(network: BottleneckNetwork, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
    """Squared error of each row, moved by epsilon along the sign of its own error's gradient (Goodfellow 2015)."""
    if epsilon:
        x = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad((network(x).prediction - y).square().sum(), x)
        x = x.detach() + epsilon * gradient.sign()
    with torch.no_grad():
        return (network(x).prediction - y).square()[:, 0].double()


def _error(squares: Tensor, scale: float) -> dict[str, float]:
    """Root of a mean of squares, its error by the delta method."""
    root = math.sqrt(float(squares.mean()))
    se = float(squares.std()) / math.sqrt(len(squares)) / (2 * root) if root else 0.0
    return {"mean": root * scale, "se": se * scale}


def write(out: Writer, model: BottleneckRegression) -> None:
    """Parameters under `network.`, float64 scales, and the side file network.json."""
    for name, tensor in model.network.state_dict().items():
        out.add(f"network.{name}", tensor)
    scale = np.array([model.level, model.scale])
    arrays = (model.mean, model.spread, scale, model.held_out)
    for name, array in zip(_TENSORS, arrays, strict=True):
        out.add(name, torch.from_numpy(np.ascontiguousarray(array)))
    about = {"columns": model.names, "target": model.target, "digest": model.digest, "facts": model.facts}
    out.files["network.json"] = json.dumps(about).encode()


def read(source: Artifact) -> BottleneckRegression:
    """The regression of an artifact of this kind. Raises BnError (exit 3) for one that is not whole."""
    try:
        about = json.loads(source.files["network.json"])
        parts = {name: source.tensor(name) for name in source.names()}
        names, target, digest = about["columns"], about["target"], about["digest"]
        state = {name.removeprefix("network."): t for name, t in parts.items() if name.startswith("network.")}
        network = BottleneckNetwork(len(names), len(state["mean.bias"]))
        network.load_state_dict(state)
        mean, spread, scale, rows = (parts[name].numpy() for name in _TENSORS)
        if mean.shape != (len(names),) or spread.shape != mean.shape or scale.shape != (2,):
            raise ValueError("scales do not fit the columns")
    except (KeyError, ValueError, TypeError, RuntimeError):  # load_state_dict raises RuntimeError
        hint = "bntools ib-analyze --train cs-ib TABLE -o FILE"
        raise bad_input(f"{source.label} is no whole regression through a bottleneck", hint) from None
    network.eval()
    return BottleneckRegression(
        network, [str(name) for name in names], str(target), mean, spread, float(scale[0]), float(scale[1]), rows,
        str(digest), about.get("facts", {}),
    )  # fmt: skip
