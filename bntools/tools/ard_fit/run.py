"""From rows to a number of axes: linear models, restarts, a plain VAE beside them, the cut, the report."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bntools.core.errors import bad_input, usage
from bntools.core.methods.vae import mixture
from bntools.core.methods.vae.artifact import LatentModel
from bntools.core.methods.vae.network import Architecture, Autoencoder, hidden_units
from bntools.core.methods.vae.rows import RowSource
from bntools.core.methods.vae.scores import Prior, encode_all
from bntools.core.progress import Progress, Step, no_progress
from bntools.tools.ard_fit import linear, paper, train
from bntools.tools.ard_fit.data import Data
from bntools.tools.ard_fit.decide import EDGE, Curve, Cut, Relevance, criteria, decide
from bntools.tools.ard_fit.report import assemble
from bntools.tools.ard_fit.settings import Settings, validate
from bntools.tools.ard_fit.train import Trained

LARGEST_FLAT = 1024
"""Numbers an image up to which `auto` takes it as a vector: of MNIST that is several times faster than convolutions."""
COMPONENTS = 50
_MIXTURE_ROWS = 20_000
_ONE_SIDED = 1.645


class Candidate(NamedTuple):
    """A trained model and what was decided about it."""

    name: str
    settings: Settings
    trained: Trained
    relevance: Relevance
    order: Tensor
    curve: Curve
    cut: Cut
    seed: int

    @property
    def nats(self) -> Tensor:
        """The negative bound [n] on held-out rows of the prefix that pays for itself."""
        return self.curve.nats[self.cut.reference]


class Fit(NamedTuple):
    """The model, the report, and held-out rows with codes for pictures."""

    model: LatentModel
    report: dict[str, Any]
    held_out: Tensor


def ard_fit(source: RowSource, settings: Settings, progress: Progress = no_progress) -> Fit:
    """Fit, count, and say what the count costs.

    >>> import numpy as np
    >>> z = np.random.default_rng(0).normal(size=(500, 2))
    >>> x = (z @ np.random.default_rng(1).normal(size=(2, 8))).astype(np.float32)
    >>> rows = RowSource(lambda a, b: x[a:b], 500, (8,), "x")
    >>> ard_fit(rows, Settings(arch="linear", baseline=False)).report["n_relevant"]["value"]
    2

    Raises BnError: exit 2 for options that do not fit, 3 for rows that are too few, not finite or all the same.
    """
    validate(settings)
    kind = architecture(source, settings)
    data = Data(source, settings, kind not in ("conv", "paper-conv"), progress)
    width = int(np.prod(data.shape))
    dim = settings.axes(width - data.constant if data.columns is None else width)
    if dim > width:
        raise usage(f"--max-dim {dim}: rows have {width} values that vary", f"--max-dim {width} at most")
    spectrum = linear.spectrum_of(data.covariance(), data.measured.rows, _flat(data.held_out))
    straight = _linear(data, spectrum, settings, dim)
    candidates = [] if kind == "linear" else _networks(data, settings, kind, dim, progress)
    plain = None
    if settings.baseline and candidates and settings.method == "ard-vae":
        plain = _networks(data, replace(settings, method="vae", restarts=1), kind, dim, progress)[0]
    best = min(candidates, key=lambda one: float(one.nats.mean()), default=straight)
    if kind != "linear" and settings.arch == "auto" and not settings.paper and not _better(best, straight):
        best = straight
    model = _model(best, data, settings)
    report = assemble(
        data, settings, spectrum, best=best, candidates=candidates, plain=plain, straight=straight
    )
    return Fit(model, report, data.held_out)


def architecture(source: RowSource, settings: Settings) -> str:
    """The kind of network: for `auto` a multilayer perceptron, of images over LARGEST_FLAT numbers convolutions."""
    image = len(source.shape) in (2, 3) and min(source.shape[-2:]) >= 8
    if settings.arch == "conv" and not image:
        raise bad_input(f"{source.label} has rows of shape {list(source.shape)}: no images", "--arch mlp")
    if settings.method == "bpca":
        return "linear"
    if settings.paper:
        return "paper-conv" if image and settings.arch != "mlp" else "mlp"
    if settings.arch == "auto":
        return "conv" if image and source.width > LARGEST_FLAT else "mlp"
    return settings.arch


def _linear(data: Data, spectrum: linear.Spectrum, settings: Settings, dim: int) -> Candidate:
    """Bayesian PCA as an autoencoder, decided about as any other."""
    columns = len(spectrum.vectors)
    fitted = linear.bayesian(spectrum.values, columns, spectrum.rows, dim)
    net = linear.autoencoder(spectrum, fitted.weights, fitted.noise, dim)
    trained = Trained(net, Prior(torch.zeros(dim), torch.ones(dim)), fitted.noise)
    flat = _Flat(data)
    return Candidate(
        "linear", settings, trained, *decide(trained, flat, settings, settings.seed), settings.seed
    )  # type: ignore[arg-type]


class _Flat:
    """Data as flat rows, for a linear model beside one of images."""

    def __init__(self, data: Data) -> None:
        self._data, self.settings, self.held_out = data, data.settings, _flat(data.held_out)

    def sample(self, count: int, seed: int = 0) -> Tensor:
        return _flat(self._data.sample(count, seed))


def _flat(x: Tensor) -> Any:
    return x.flatten(1)


def _networks(data: Data, settings: Settings, kind: str, dim: int, progress: Progress) -> list[Candidate]:
    """One candidate a restart."""
    epochs = settings.epochs_for(data.rows)
    candidates = []
    with progress(settings.method, epochs * settings.restarts) as step:
        for restart in range(settings.restarts):
            seed = settings.seed + 1000 * restart
            candidates.append(_candidate(data, settings, kind, dim, seed, epochs, step))
    return candidates


def _candidate(
    data: Data, settings: Settings, kind: str, dim: int, seed: int, epochs: int, step: Step
) -> Candidate:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Autoencoder(architecture_for(data, settings, kind, dim))
    if settings.paper:
        trained = paper.train(net, data, settings, epochs=epochs, seed=seed, step=step)
        scored = replace(settings, score="jacobian")
        relevance, order, costs, chosen = decide(trained, data, scored, seed)
        count = criteria(relevance, costs, chosen, trained.variance, settings.explained)["paper"]
        chosen = Cut(count, len(order), count >= EDGE * len(order))
        return Candidate(settings.method, settings, trained, relevance, order, costs, chosen, seed)
    trained = train.train(net, data, settings, epochs=epochs, seed=seed, step=step)
    return Candidate(settings.method, settings, trained, *decide(trained, data, settings, seed), seed)


def architecture_for(data: Data, settings: Settings, kind: str, dim: int) -> Architecture:
    if not settings.paper:
        return Architecture(kind, data.shape, dim, hidden_units(kind, data.shape))
    unit = data.measured.low >= 0 and data.measured.high <= 1
    hidden = (
        tuple(settings.filters << i for i in range(4))
        if kind == "paper-conv"
        else hidden_units(kind, data.shape)
    )
    return Architecture(kind, data.shape, dim, hidden, "sigmoid" if unit else "linear", clamp=False)


def _better(network: Candidate, straight: Candidate) -> bool:
    """Whether the network's bound on held-out rows is lower than the linear model's, with 95 %."""
    rows = min(len(network.nats), len(straight.nats))
    gain = straight.nats[:rows] - network.nats[:rows]
    return float(gain.mean()) > _ONE_SIDED * float(gain.std()) / rows**0.5


def _model(best: Candidate, data: Data, settings: Settings) -> LatentModel:
    """What encodes, decodes and samples."""
    net, count, order = best.trained.net, best.cut.count, best.order
    codes = encode_all(net, data.sample(_MIXTURE_ROWS, settings.seed).reshape(-1, *net.arch.shape))
    prior = best.trained.prior
    if settings.paper:
        mean = codes.mean.mean(0)
        moment = prior.variance if "generation" in settings.defects else prior.variance - mean.square()
        prior = Prior(mean, moment.clamp_min(1e-12))
    density = None
    if count and not settings.paper:
        density = mixture.fit(codes.sampled(settings.seed)[:, order[:count]], COMPONENTS, settings.seed)
    facts = {
        "method": best.name,
        "seed": best.seed,
        "pad": data.pad,
        "bytes": data.source.bytes,
        "paper": settings.paper,
    }
    return LatentModel(
        net, data.source.shape, data.mean, data.scale, data.columns, prior, order, count, best.trained.variance,
        density, facts, label="the fit",
    )  # fmt: skip


def cost(rows: RowSource, settings: Settings, kind: str) -> dict[str, Any]:
    """What a fit takes: steps of all runs, multiplications and additions, bytes of memory."""
    epochs, runs = settings.epochs_for(rows.rows), settings.restarts + settings.baseline
    weights = 2 * sum(
        a * b for a, b in zip((rows.width, 512, 256), (512, 256, settings.axes(rows.width)), strict=True)
    )
    return {
        "max_dim": settings.axes(rows.width), "epochs": epochs, "runs": runs if kind != "linear" else 0,
        "steps": runs * epochs * max(1, rows.rows // settings.batch_size()),
        "operations": 6 * weights * runs * epochs * rows.rows if kind == "mlp" else None,
        "memory_bytes": min(4 * rows.rows * rows.width, settings.memory) + 400_000_000,
    }  # fmt: skip
