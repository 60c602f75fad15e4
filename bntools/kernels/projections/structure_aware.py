"""Structure-aware subspaces: one of the d numbers scales each layer's share of the projection."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bntools.kernels.projections.projections import Floats, Projection


class Said:
    """theta_l = theta_0l + lambda_l (P z')_l for each of m layers (Aghajanyan et al., arXiv 2012.13255, eq. 3).

    The m + d' numbers are (lambda - 1, z'): all zero at the start, when theta = theta_0. Has the interface of a
    projection, but is bilinear: `adjoint` is that of the derivative where `apply` was called last. Keeps one vector
    [D] beside what the projection keeps. Raises ValueError where d does not exceed the number of layers.
    """

    def __init__(self, inner: Projection, spans: Sequence[tuple[int, int]]) -> None:
        self.inner, self.spans = inner, list(spans)
        self.size, self.seed = inner.size, inner.seed
        self.kind = f"said-{inner.kind}"
        self._shift = np.zeros(inner.size, np.float32)
        self._scales = np.ones(len(self.spans), np.float32)

    @property
    def dim(self) -> int:
        return self.inner.dim + len(self.spans)

    def apply(self, z: Floats, base: Floats, out: Floats) -> Floats:
        """out = base + lambda * (P z') for z = (lambda - 1, z'): [dim]."""
        layers = len(self.spans)
        self._scales = z[:layers] + np.float32(1)
        self._shift[:] = 0
        self.inner.apply(z[layers:], self._shift, self._shift)
        if out is not base:
            out[:] = base
        for scale, (start, stop) in zip(self._scales, self.spans, strict=True):
            out[start:stop] += scale * self._shift[start:stop]
        return out

    def adjoint(self, g: Floats) -> Floats:
        """Gradient of (lambda - 1, z') for the gradient g [D] of theta."""
        scaled = np.zeros_like(g)
        slopes = np.empty(len(self.spans), np.float32)
        for layer, (start, stop) in enumerate(self.spans):
            part = g[start:stop]
            slopes[layer] = np.sum(part * self._shift[start:stop], dtype=np.float64)
            np.multiply(part, self._scales[layer], out=scaled[start:stop])
        return np.concatenate([slopes, self.inner.adjoint(scaled)])

    def lift(self, z: Floats, wide: Said) -> Floats | None:
        """As the projection lifts; the scales stay."""
        layers = len(self.spans)
        lifted = self.inner.lift(z[layers:], wide.inner) if wide.spans == self.spans else None
        return None if lifted is None else np.concatenate([z[:layers], lifted])
