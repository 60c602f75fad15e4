"""Levels and planes of an input chosen together, spelled out: what the fast search must equal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def moves(bits: Sequence[int], trellis: bool) -> list[float]:
    """Of each row of a chain, in cells: a plane's by its bits, down the rows."""
    if not trellis:
        return [bit / 2 - 0.25 for bit in bits]
    padded = [0, 0, *bits]
    return [((padded[k + 2] ^ padded[k]) - 0.5) / 2 + (padded[k + 1] - 0.5) / 4 for k in range(len(bits))]


def read(levels: Sequence[int], codes: Sequence[int], planes: int) -> np.ndarray:
    """The weights of an input in steps, of a chain of rows, at every depth [planes + 1, rows]."""
    found = [np.array(levels, np.float64)]
    for plane in range(planes):
        bits = [int(code) >> (3 - plane) & 1 for code in codes]
        found.append(found[-1] + 0.5**plane * np.array(moves(bits, plane < 2)))
    return np.array(found)


def chain(
    want: np.ndarray, weights: Sequence[float], price: np.ndarray
) -> tuple[float, list[tuple[int, int]]]:
    """The cheapest levels and codes of a chain for what is wanted [depths, rows], and their cost.

    price: [rows, 128]. Of all levels near, and all bits, by dynamic programming over what the last two rows' bits were.
    """
    planes, best = len(want) - 1, {(0, 0): (0.0, [])}
    for row in range(want.shape[1]):
        found = {}
        center = int(np.floor(np.average(want[:, row], weights=weights)))
        for (last, before), (cost, path) in best.items():
            for code in range(16):
                place, offsets = 0.0, []
                for plane in range(planes):
                    bit = code >> (3 - plane) & 1
                    then, old = last >> (3 - plane) & 1, before >> (3 - plane) & 1
                    move = ((bit ^ old) - 0.5) / 2 + (then - 0.5) / 4 if plane < 2 else bit / 2 - 0.25
                    place += 0.5**plane * move
                    offsets.append(place)
                for level in (center, center + 1):
                    errors = [level - want[0, row]]
                    errors += [level + offset - want[1 + at, row] for at, offset in enumerate(offsets)]
                    total = cost + price[row, min(abs(level), 127)]
                    total += sum(w * e * e for w, e in zip(weights, errors, strict=True))
                    state = (code & 0b1100, last & 0b1100)
                    if state not in found or total < found[state][0]:
                        found[state] = total, [*path, (level, code)]
        best = found
    return min(best.values(), key=lambda way: way[0])
