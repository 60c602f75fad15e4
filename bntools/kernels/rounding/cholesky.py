"""The factor of an inverse that error feedback walks along."""

from __future__ import annotations

import torch
from torch import Tensor


def inverse_factor(h: Tensor) -> Tensor | None:
    """Upper U [n, n] with H^-1 = U^T U, or None where H [n, n] is not positive definite in its number type.

    Two Cholesky factorisations (GPTQ, arXiv 2210.17323, section 3.3). No more than two matrices live beside H: it may
    be the largest there is.
    """
    lower, failed = torch.linalg.cholesky_ex(h)
    if failed:
        return None
    inverse = torch.cholesky_inverse(lower)
    del lower
    upper, failed = torch.linalg.cholesky_ex(inverse, upper=True)
    return None if failed or not bool(torch.isfinite(upper).all()) else upper
