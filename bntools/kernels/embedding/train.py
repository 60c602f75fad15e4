"""A table of vectors as a tensor train, and as a perceptron over hashes: what both fitting and reading compute."""

from __future__ import annotations

import torch
from torch import Tensor


def factors(d: int) -> tuple[int, int, int]:
    """Three factors of a width, as equal as its divisors allow, the smallest first.

    Example: `factors(16)` is `(2, 2, 4)`.
    """
    options = [(a, b, d // (a * b)) for a in range(1, d + 1) for b in range(a, d + 1) if d % (a * b) == 0]
    return min((o for o in options if o[1] <= o[2]), key=lambda o: (sum(o), o))


def row_factors(n: int) -> tuple[int, int, int]:
    """Three sizes whose product holds n rows, about equal."""
    first = max(1, round(n ** (1 / 3)))
    second = max(1, round((n / first) ** 0.5))
    return first, second, -(-n // (first * second))


def contract(cores: list[Tensor], ids: Tensor) -> Tensor:
    """Rows `ids` [B] of the table that three cores [n_j, r_j, d_j, r_j+1] stand for: [B, d1 d2 d3].

    A row's number in mixed radix, its last digit the fastest, chooses a slice of each core (TT-Rec, equation 2).
    """
    A, B, C = cores
    n2, n3 = len(B), len(C)
    a, b, c = A[ids // (n2 * n3)], B[ids // n3 % n2], C[ids % n3]
    left = torch.einsum("npr,nrqs->npqs", a[:, 0], b).flatten(1, 2)
    return (left @ c[..., 0]).flatten(1)


def perceptron(x: Tensor, layers: list[Tensor]) -> Tensor:
    """Two hidden layers with Mish, of layers W0, b0, W1, b1, W2 (DHE, section 4)."""
    W0, b0, W1, b1, W2 = layers
    hidden = torch.nn.functional.mish(x @ W0 + b0)
    return torch.nn.functional.mish(hidden @ W1 + b1) @ W2
