"""The compiled loops of a proximity graph: nearest by distance, pruned neighbours, insertion, search by codes."""

from __future__ import annotations

import numba
import numpy as np

from bntools.kernels.vectors.loops import WORDS, tables

NONE = -1


@numba.njit(cache=True, nogil=True, fastmath=True)
def apart(x, y):  # type: ignore[no-untyped-def]
    """Squared distance of two rows."""
    total = np.float32(0)
    for j in range(len(x)):
        step = x[j] - y[j]
        total += step * step
    return total


@numba.njit(cache=True, nogil=True)
def offer(key, item, keys, items, fresh, size):  # type: ignore[no-untyped-def]
    """Put an item into a list of at most len(keys) that ascends in its keys; returns its place, or -1."""
    if size == len(keys):
        if key >= keys[size - 1]:
            return NONE
        place = size - 1
    else:
        place = size
    while place > 0 and keys[place - 1] > key:
        keys[place], items[place], fresh[place] = keys[place - 1], items[place - 1], fresh[place - 1]
        place -= 1
    keys[place], items[place], fresh[place] = key, item, 1
    return place


@numba.njit(cache=True, nogil=True, fastmath=True)
def nearest(points, query, neighbours, count, entry, stamps, stamp, keys, items, fresh):  # type: ignore[no-untyped-def]
    """Fill keys and items with the nearest points that a walk from `entry` meets; returns how many."""
    keys[0], items[0], fresh[0] = apart(points[entry], query), entry, 1
    stamps[entry] = stamp
    size, at = 1, 0
    while at < size:
        if fresh[at] == 0:
            at += 1
            continue
        fresh[at] = 0
        here, back = items[at], at + 1
        for j in range(count[here]):
            other = neighbours[here, j]
            if stamps[other] == stamp:
                continue
            stamps[other] = stamp
            place = offer(apart(points[other], query), other, keys, items, fresh, size)
            if place >= 0:
                size = min(size + 1, len(keys))
                back = min(back, place)
        at = back
    return size


@numba.njit(cache=True, nogil=True, fastmath=True)
def prune(points, keys, items, size, spread, chosen):  # type: ignore[no-untyped-def]
    """Choose of candidates, nearest first, those to which none chosen before is `spread` times nearer than the
    point itself; squared distances. Returns how many of `chosen` are filled."""
    taken = 0
    for i in range(size):
        if taken == len(chosen):
            break
        alone = True
        for j in range(taken):
            if spread * apart(points[items[i]], points[chosen[j]]) < keys[i]:
                alone = False
                break
        if alone:
            chosen[taken] = items[i]
            taken += 1
    return taken


@numba.njit(cache=True, nogil=True, fastmath=True)
def shorten(points, here, neighbours, count, spread, most, keys, items, fresh):  # type: ignore[no-untyped-def]
    """Prune the neighbours of one point to `most`."""
    size = 0
    for j in range(count[here]):
        other = neighbours[here, j]
        offer(apart(points[here], points[other]), other, keys[: count[here]], items, fresh, size)
        size += 1
    count[here] = prune(points, keys, items, size, spread, neighbours[here, :most])


@numba.njit(cache=True, nogil=True, fastmath=True)
def insert_all(points, order, neighbours, count, degree, breadth, spread, first, last, stamps):  # type: ignore[no-untyped-def]
    """Insert points order[first:last] into the graph of those before; lists may overflow by half before pruning.

    neighbours [n, degree + degree / 2], count [n]; order[0] is where every walk begins.
    """
    keys, items = np.empty(breadth, np.float32), np.empty(breadth, np.int32)
    fresh = np.empty(breadth, np.uint8)
    room = neighbours.shape[1]
    own_keys, own_items = np.empty(room, np.float32), np.empty(room, np.int32)
    own_fresh = np.empty(room, np.uint8)
    for t in range(max(first, 1), last):
        here = order[t]
        size = nearest(points, points[here], neighbours, count, order[0], stamps, t, keys, items, fresh)
        count[here] = prune(points, keys, items, size, spread, neighbours[here, : degree // 2])
        for j in range(count[here]):
            other = neighbours[here, j]
            if count[other] == room:
                shorten(points, other, neighbours, count, spread, degree, own_keys, own_items, own_fresh)
            neighbours[other, count[other]] = here
            count[other] += 1


@numba.njit(cache=True, nogil=True, fastmath=True)
def shorten_all(points, neighbours, count, degree, spread):  # type: ignore[no-untyped-def]
    """Prune every list to `degree`."""
    room = neighbours.shape[1]
    keys, items = np.empty(room, np.float32), np.empty(room, np.int32)
    fresh = np.empty(room, np.uint8)
    for here in range(len(count)):
        if count[here] > degree:
            shorten(points, here, neighbours, count, spread, degree, keys, items, fresh)


@numba.njit(cache=True, nogil=True)
def link_pairs(sources, targets, neighbours, degree):  # type: ignore[no-untyped-def]
    """Enter targets behind the first `degree` columns of their sources' lists, each once, while there is room."""
    for i in range(len(sources)):
        row, target = neighbours[sources[i]], targets[i]
        for j in range(len(row)):
            if row[j] == target:
                break
            if j >= degree and row[j] < 0:
                row[j] = target
                break


@numba.njit(cache=True, nogil=True, fastmath=True)
def half_tables(table, most, result):  # type: ignore[no-untyped-def]
    """A query's table [groups, 256] in 16 bits, which stay in the nearest cache; returns floor and step: a sum of
    entries s over all groups stands for floor + step s. most [256] is room to work in."""
    most[:] = np.float32(1e-30)
    for g in range(len(table)):
        line = table[g]
        for k in range(WORDS):
            most[k] = max(most[k], abs(line[k]))
    widest = most.max()
    over = np.float32(32767) / widest
    for g in range(len(table)):
        line, whole = table[g], result[g]
        for k in range(WORDS):
            whole[k] = np.int32((line[k] + widest) * over + np.float32(0.5))
    return -widest * len(table), widest / np.float32(32767)


@numba.njit(cache=True, nogil=True, fastmath=True, inline="always")
def score(codes, here, table, floor, step, factor, bias):  # type: ignore[no-untyped-def]
    """Estimated product of one coded row with the query of `table`, without its centroid's."""
    row = codes[here]
    total = np.uint32(0)
    for g in range(len(table)):
        total += table[g, row[g]]
    return bias[here] + factor[here] * (floor + step * np.float32(total))


@numba.njit(cache=True, nogil=True, fastmath=True)
def walk(
    table, centre, codes, factor, bias, cell, neighbours, degree, entry, stamps, stamp, keys, items, fresh
):  # type: ignore[no-untyped-def]
    """Fill keys, ascending in minus the score, and items with the best rows that a walk from `entry` meets.

    A list of neighbours ends at the first -1 of its first `degree` columns, and begins again behind them. Returns how
    many rows there are.
    """
    half = np.empty(table.shape, np.uint16)
    floor, step = half_tables(table, np.empty(WORDS, np.float32), half)
    size = 0
    for here in entry:
        if here >= 0 and stamps[here] != stamp:
            stamps[here] = stamp
            value = score(codes, here, half, floor, step, factor, bias) + centre[cell[here]]
            if offer(-value, here, keys, items, fresh, size) >= 0:
                size = min(size + 1, len(keys))
    at = 0
    while at < size:
        if fresh[at] == 0:
            at += 1
            continue
        fresh[at] = 0
        here, back = items[at], at + 1
        row, j = neighbours[here], 0
        while j < len(row):
            other = row[j]
            if other < 0:
                if j >= degree:
                    break
                j = degree
                continue
            j += 1
            if stamps[other] == stamp:
                continue
            stamps[other] = stamp
            value = score(codes, other, half, floor, step, factor, bias) + centre[cell[other]]
            place = offer(-value, other, keys, items, fresh, size)
            if place >= 0:
                size = min(size + 1, len(keys))
                back = min(back, place)
        at = back
    return size


@numba.njit(cache=True, nogil=True, fastmath=True)
def walk_all(
    queries,
    order,
    start,
    words,
    centre,
    codes,
    factor,
    bias,
    cell,
    neighbours,
    degree,
    entries,
    positions,
    scores,
):  # type: ignore[no-untyped-def]
    """A walk for each query [m, d]; fills positions and scores [m, breadth], descending, as far as there are rows."""
    breadth = positions.shape[1]
    stamps = np.zeros(len(codes), np.uint32)
    keys, fresh = np.empty(breadth, np.float32), np.empty(breadth, np.uint8)
    table = np.empty((len(start) - 1, WORDS), np.float32)
    for i in range(len(queries)):
        tables(queries[i], order, start, words, table)
        size = walk(
            table, centre[i], codes, factor, bias, cell, neighbours, degree, entries[i], stamps, i + 1,
            keys, positions[i], fresh,
        )  # fmt: skip
        for j in range(size):
            scores[i, j] = -keys[j]


@numba.njit(cache=True, nogil=True, fastmath=True)
def byte_products(codes, rows, queries, result):  # type: ignore[no-untyped-def]
    """Products of queries [m, D] with rows [m, r] of bytes [n, D]."""
    for i in range(len(rows)):
        query = queries[i]
        for j in range(rows.shape[1]):
            row, total = codes[rows[i, j]], np.float32(0)
            for d in range(len(query)):
                total += query[d] * np.float32(row[d])
            result[i, j] = total
