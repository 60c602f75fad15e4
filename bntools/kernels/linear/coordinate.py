"""Compiled inner loops: coordinate descent of a quadratic model whose curvature is the Gram matrix."""

# pyright: reportArgumentType=false
from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"})
def lasso_steps(weight, point, gradient, gram, curvature, l1, l2, tolerance, rounds):
    """Minimise, class by class and in place, g'(w - v) + h/2 (w - v)'G(w - v) + l1 |w|_1 + l2/2 |w|^2 over w.

    weight [C, K] is the start and the answer; point v, gradient g [C, K]; gram G [K, K]; curvature h [C].
    Sweeps go over the active weights until no step exceeds `tolerance`, then over all; `rounds` full sweeps at most.
    """
    classes, columns = weight.shape
    active = np.empty(columns, np.int64)
    slope = np.empty(columns, np.float32)
    for c in range(classes):
        h, w = curvature[c], weight[c]
        slope[:] = gradient[c]
        for k in range(columns):
            delta = w[k] - point[c, k]
            if delta != 0:
                slope += (h * delta) * gram[k]
        for _ in range(rounds):
            count, largest = 0, np.float32(0)
            for k in range(columns):
                step = _update(w, slope, gram, k, h, l1, l2)
                largest = max(largest, abs(step))
                if w[k] != 0:
                    active[count] = k
                    count += 1
            if largest < tolerance:
                break
            for _ in range(100):
                largest = np.float32(0)
                for j in range(count):
                    largest = max(largest, abs(_update(w, slope, gram, active[j], h, l1, l2)))
                if largest < tolerance:
                    break


@numba.njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"}, inline="always")
def _update(w, slope, gram, k, h, l1, l2):
    old = w[k]
    own = h * gram[k, k] + l2
    if own <= 0:
        return np.float32(0)
    pull = h * gram[k, k] * old - slope[k]
    size = abs(pull) - l1
    new = np.float32(0) if size <= 0 else np.float32(np.sign(pull) * size / own)
    step = new - old
    if step != 0:
        w[k] = new
        slope += (h * step) * gram[k]
    return step


@numba.njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"})
def ridge_steps(weight, point, gradient, gram, curvature, l2, support, starts, tolerance, rounds):
    """`lasso_steps` without an l1 penalty, each class over its own columns support[starts[c] : starts[c + 1]]."""
    largest_class = 0
    for c in range(len(starts) - 1):
        largest_class = max(largest_class, starts[c + 1] - starts[c])
    local = np.empty((largest_class, largest_class), np.float32)
    slope = np.empty(largest_class, np.float32)
    for c in range(len(starts) - 1):
        h, columns = curvature[c], support[starts[c] : starts[c + 1]]
        count = len(columns)
        for i in range(count):
            for j in range(count):
                local[i, j] = h * gram[columns[i], columns[j]]
        for i in range(count):
            total = gradient[c, columns[i]] + l2 * weight[c, columns[i]]
            for j in range(count):
                total += local[i, j] * (weight[c, columns[j]] - point[c, columns[j]])
            slope[i] = total
        for _ in range(rounds):
            largest = np.float32(0)
            for i in range(count):
                own = local[i, i] + l2
                if own > 0:
                    step = np.float32(-slope[i] / own)
                    weight[c, columns[i]] += step
                    for j in range(count):
                        slope[j] += local[i, j] * step
                    slope[i] += l2 * step
                    largest = max(largest, abs(step))
            if largest < tolerance:
                break
