"""How far the samples of a Gaussian field are from its data, without drawing any."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from bntools.core.diffusion.gaussian import GaussianField
from bntools.kernels.spectral.cosine import dct2, in_band
from bntools.tools.sample_bottleneck.settings import Settings
from bntools.tools.sample_bottleneck.stages.sampler import Source, sample
from bntools.tools.sample_bottleneck.stages.schedule import Schedule

EXACT_POINTS = 1024
"""Numbers of a Gaussian sample up to which its covariance is followed exactly."""


def exactness(field: GaussianField, schedule: Schedule, settings: Settings) -> dict[str, float]:
    """How far the samples' Gaussian is from the data's: the covariance of a linear sampler, by its response to noise.

    Every source of noise in turn gets unit vectors, the others zero; covariances of sources add up. band: the largest
    relative error of a variance in the band of the smallest stage; high: above it; kl: KL divergence a dimension.
    """
    points = int(torch.tensor(field.shape).prod())
    data = field.at(field.size)
    plain = GaussianField(field.label, field.shape, data._replace(mean=0 * data.mean), field.clock)
    covariance = torch.zeros(points, points, dtype=torch.float64)
    stream, used = 0, 0
    settings = dataclasses.replace(settings, batch=points)
    while stream <= used:
        probe, calls = _probe(stream)
        x = sample(plain, schedule, settings, count=points, source=probe).x.double()
        used = max(used, max(calls))
        response = dct2(x).reshape(points, points)
        covariance += response.T @ response
        stream += 1
    return _gap(covariance, field, min((stage.size for stage in schedule.stages), key=lambda size: size[0]))


def _probe(stream: int) -> tuple[Source, list[int]]:
    """Unit vectors as the noise of one stream, zero as that of the others; and the streams that were asked for."""
    calls: list[int] = [0]

    def source(asked: int, rows: slice, shape: tuple[int, ...]) -> Tensor:
        calls.append(asked)
        points = int(torch.tensor(shape).prod())
        noise = torch.zeros(rows.stop - rows.start, points, dtype=torch.float64)
        if asked == stream:
            for row in range(rows.start, min(rows.stop, points)):
                noise[row - rows.start, row] = 1.0
        return noise.reshape(-1, *shape)

    return source, calls


def _gap(covariance: Tensor, field: GaussianField, low: tuple[int, int]) -> dict[str, float]:
    s = field.at(field.size).variance.expand(field.shape).reshape(-1)
    whitened = covariance / s.sqrt()[:, None] / s.sqrt()[None]
    relative = whitened.diagonal()
    inside = in_band(field.size, low).expand(field.shape).reshape(-1)
    sign, logdet = torch.linalg.slogdet(whitened)
    kl = 0.5 * (relative.sum() - len(s) - logdet) / len(s) if sign > 0 else torch.tensor(torch.inf)
    return {
        "band": float((relative[inside] - 1).abs().max()),
        "high": float((relative[~inside] - 1).abs().max()) if bool((~inside).any()) else 0.0,
        "kl": float(kl),
    }
