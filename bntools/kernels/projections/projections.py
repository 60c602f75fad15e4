"""Random projections P [D, d] with columns of norm one: theta = theta_0 + P z, never stored, made from a seed.

Kinds (`PROJECTIONS`): `dense`, `sparse` and `fastfood` of Li et al. (arXiv 1804.08838, section 2 and S7);
`fastfood-full`, as that paper's program has it; `uniform` (arXiv 2506.00799: one nonzero a row) and `cyclic`.
Each has `apply(z, base, out)`, out = base + P z, and `adjoint(g)`, P^T g. Every P is a function of
(kind, VERSION, D, d, seed) made of integers; every result is the same sequence of floating-point operations on any
number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bntools.kernels.counter_random import key_of, normal_table, words
from bntools.kernels.projections import loops
from bntools.kernels.projections.hadamard import fwht

VERSION = 1
CHUNK = 1 << 22
"""Parameters of one unit of work, whatever the number of threads: sums are added in the order of the units."""
STORED = 1 << 22
"""Parameters up to which `uniform` keeps its codes (2 or 4 bytes each) instead of making them every time."""
EXACT_TAIL = 1 << 14
"""Dimensions up to which the last, cut block of `fastfood` enters the column norms exactly."""

Floats = NDArray[np.float32]
Sums = NDArray[np.float64]
T = TypeVar("T")


class Projection:
    """P [size, dim]. Subclasses say what one piece [start, stop) of the flat vector gets and gives."""

    kind = ""
    step = CHUNK
    """Pieces start at multiples of this."""
    piecewise = False
    """Whether `take` accepts pieces that start anywhere: then no one needs to hold a whole gradient."""

    def __init__(self, size: int, dim: int, seed: int, threads: int = 1) -> None:
        if not 1 <= dim <= size or size >= 1 << 40 or dim >= 1 << 30:
            raise ValueError(f"cannot project {dim} dimensions into {size}")
        self.size, self.dim, self.seed, self.threads = size, dim, seed, threads
        self.inverse_norms: Floats = np.ones(dim, np.float32)

    def apply(self, z: Floats, base: Floats, out: Floats) -> Floats:
        """out = base + P z. z: [dim]; base, out: [size] float32, the same array or apart; returns out."""
        prepared = self._prepare(np.ascontiguousarray(z, np.float32) * self.inverse_norms)
        self._each(lambda a, b: self._put(prepared, a, base[a:b], out[a:b]))
        return out

    def adjoint(self, g: Floats) -> Floats:
        """P^T g for g [size] float32: [dim] float32, summed in float64."""

        def one(a: int, b: int) -> Sums:
            sums = self._zeros()
            self._take(g[a:b], a, sums)
            return sums

        total = self._zeros()
        for part in self._each(one):
            total += part
        return self.finish(total)

    def sums(self) -> Sums:
        """What `take` adds to, zero."""
        return self._zeros()

    def take(self, g: Floats, start: int, sums: Sums) -> None:
        """Add the adjoint of the piece g [n] of a gradient, parameters start ... start + n - 1. Where `piecewise`."""
        self._take(g, start, sums)

    def finish(self, sums: Sums) -> Floats:
        """P^T g [dim] float32 from the sums over all pieces of g."""
        return (self._finish(sums) * self.inverse_norms).astype(np.float32)

    def lift(self, z: Floats, wide: Projection) -> Floats | None:
        """The z' with wide P' z' = P z where this subspace lies in that of `wide` (same seed); None where not."""
        return z.copy() if self._same(wide) and wide.dim == self.dim else None

    def _same(self, other: Projection) -> bool:
        return (self.kind, self.size, self.seed) == (other.kind, other.size, other.seed)

    def _each(self, work: Callable[[int, int], T]) -> list[T]:
        starts = range(0, self.size, self.step)
        stops = [min(start + self.step, self.size) for start in starts]
        if self.threads < 2 or len(starts) < 2:
            return [work(a, b) for a, b in zip(starts, stops, strict=True)]
        with ThreadPoolExecutor(self.threads) as pool:
            return list(pool.map(work, starts, stops))

    def _prepare(self, z: Floats) -> Floats:
        return z

    def _zeros(self) -> Sums:
        return np.zeros(self.dim)

    def _finish(self, sums: Sums) -> Sums:
        return sums

    def _put(self, z: Floats, start: int, base: Floats, out: Floats) -> None:
        raise NotImplementedError

    def _take(self, g: Floats, start: int, sums: Sums) -> None:
        raise NotImplementedError


class _Signed(Projection):
    """Entries +-1 before normalization: z and -z lie by turns, and a nonzero is 2 column + sign."""

    def _prepare(self, z: Floats) -> Floats:
        return np.stack([z, -z], 1).reshape(-1)

    def _zeros(self) -> Sums:
        return np.zeros(2 * self.dim)

    def _finish(self, sums: Sums) -> Sums:
        return sums[0::2] - sums[1::2]

    def _code_type(self) -> type:
        return np.uint16 if self.dim <= 1 << 15 else np.uint32


class Uniform(_Signed):
    """One nonzero a row: parameter i moves with group floor(u_i d), sign its own, +-1 / sqrt(group's size).

    P^T P = I exactly (a group that is empty, likely only for d near D, gives a column of zeros). Halving d merges
    neighbouring groups: nested. Up to STORED parameters the codes are kept, beyond that they are made each time:
    no memory. Deviation from arXiv 2506.00799: random signs.
    """

    kind = "uniform"
    piecewise = True

    def __init__(self, size: int, dim: int, seed: int, threads: int = 1) -> None:
        super().__init__(size, dim, seed, threads)
        self._key = key_of(seed, 1)
        self._code: NDArray | None = None
        if size <= STORED:
            self._code = np.empty(size, self._code_type())
            loops.codes(self._key, 0, dim, self._code)
        ones = np.ones(min(size, self.step), np.float32)
        counts = self._zeros()
        for part in self._each(lambda a, b: self._counted(ones[: b - a], a)):
            counts += part
        self.inverse_norms = _inverse_roots(counts[0::2] + counts[1::2])

    def _counted(self, ones: Floats, start: int) -> Sums:
        sums = self._zeros()
        self._take(ones, start, sums)
        return sums

    def lift(self, z: Floats, wide: Projection) -> Floats | None:
        """Exact where the wide dimension is a multiple: every group's value goes to its parts."""
        if not (self._same(wide) and wide.dim % self.dim == 0):
            return None
        values = np.repeat(z * self.inverse_norms, wide.dim // self.dim)
        return np.divide(values, wide.inverse_norms, out=np.zeros_like(values), where=wide.inverse_norms > 0)

    def _put(self, z: Floats, start: int, base: Floats, out: Floats) -> None:
        if self._code is None:
            loops.gather_made(z, self._key, start, base, out)
        else:
            loops.gather(z, self._code[start : start + out.size], base, out)

    def _take(self, g: Floats, start: int, sums: Sums) -> None:
        if self._code is None:
            loops.scatter_made(g, self._key, start, sums)
        else:
            loops.scatter(g, self._code[start : start + g.size], sums)


class Cyclic(Projection):
    """One nonzero a row without a random access: block k of d parameters gets z rolled by a random shift.

    Signs are random, one a parameter. P^T P = I exactly; ours, for large D: both ways stream through memory.
    """

    kind = "cyclic"
    piecewise = True

    def __init__(self, size: int, dim: int, seed: int, threads: int = 1) -> None:
        super().__init__(size, dim, seed, threads)
        self._keys = key_of(seed, 1), key_of(seed, 2)
        counts = np.full(dim, size // dim, np.float64)
        if rest := size % dim:
            shift = ((int(words(seed, 1, size // dim, 1)[0]) >> 32) * dim) >> 32
            counts[(np.arange(rest) + shift) % dim] += 1
        self.inverse_norms = _inverse_roots(counts)

    def _put(self, z: Floats, start: int, base: Floats, out: Floats) -> None:
        loops.cycle(z, *self._keys, start, base, out)

    def _take(self, g: Floats, start: int, sums: Sums) -> None:
        loops.uncycle(g, *self._keys, start, sums)


class Fastfood(Projection):
    """Blocks H G Pi H B, one below the other, each of n = 2^ceil(log2 d) rows (Le et al. 2013): O(D log d).

    B random signs, Pi a random order, G normal, H the Walsh-Hadamard matrix; columns normalized over all D rows
    (beyond EXACT_TAIL dimensions with the cut last block at its mean). Nothing is stored but d norms.
    """

    kind = "fastfood"

    def __init__(self, size: int, dim: int, seed: int, threads: int = 1) -> None:
        super().__init__(size, dim, seed, threads)
        self.block = 1 << (dim - 1).bit_length()
        self.step = max(CHUNK, self.block)
        self._key = key_of(seed, 1)
        self._table = normal_table()
        whole, rest = divmod(size, self.block)
        energy = np.zeros(dim)
        energy += self.block * sum(self._energy(k) for k in range(whole))
        if rest and dim <= EXACT_TAIL:
            loops.truncated_energy(self._key, whole, self.block, rest, dim, self._table, energy)
        elif rest:
            energy += rest * self._energy(whole)
        self.inverse_norms = _inverse_roots(energy)

    def _energy(self, block: int) -> int:
        return int(loops.gauss_energy(self._key, block * self.block, self.block, self._table))

    def lift(self, z: Floats, wide: Projection) -> Floats | None:
        """The first d coordinates of a wider subspace are this one where both have blocks of one length."""
        if not (self._same(wide) and isinstance(wide, Fastfood) and wide.block == self.block):
            return None
        if wide.dim < self.dim:
            return None
        lifted = np.zeros(wide.dim, np.float32)
        lifted[: self.dim] = z * self.inverse_norms / wide.inverse_norms[: self.dim]
        return lifted

    def _prepare(self, z: Floats) -> Floats:
        return np.concatenate([z, np.zeros(self.block - self.dim, np.float32)])

    def _zeros(self) -> Sums:
        return np.zeros(self.block)

    def _finish(self, sums: Sums) -> Sums:
        return sums[: self.dim]

    def _put(self, z: Floats, start: int, base: Floats, out: Floats) -> None:
        loops.fastfood(z, self._key, start // self.block, self.block, self._table, base, out)

    def _take(self, g: Floats, start: int, sums: Sums) -> None:
        loops.unfastfood(g, self._key, start // self.block, self.block, self._table, sums)


class FastfoodFull(Projection):
    """One block H G Pi H B of n = 2^ceil(log2 D) rows, cut to D: what the papers' programs compute, O(D log D).

    As there, all columns are divided by their common root mean square norm. The diagonals and the order are kept
    (9 bytes a parameter). Any smaller d is nested.
    """

    kind = "fastfood-full"

    def __init__(self, size: int, dim: int, seed: int, threads: int = 1) -> None:
        super().__init__(size, dim, seed, threads)
        n = self._n = 1 << (size - 1).bit_length()
        key, table = key_of(seed, 1), normal_table()
        self._order = np.arange(n, dtype=np.int32)
        self._sign = np.empty(n, np.int8)
        self._gauss = np.empty(n, np.float32)
        loops.chaos(key, 0, table, self._sign, self._order, self._gauss)
        scale = 1 / np.sqrt(size * float(loops.gauss_energy(key, 0, n, table)))
        self.inverse_norms = np.full(dim, scale, np.float32)

    def lift(self, z: Floats, wide: Projection) -> Floats | None:
        """The first d coordinates of a wider subspace are this one."""
        if not self._same(wide) or wide.dim < self.dim:
            return None
        return np.concatenate([z, np.zeros(wide.dim - self.dim, np.float32)])

    def apply(self, z: Floats, base: Floats, out: Floats) -> Floats:
        work = np.zeros(self._n, np.float32)
        work[: self.dim] = z * self.inverse_norms * self._sign[: self.dim]
        mixed = fwht(work, self.threads)[self._order]
        mixed *= self._gauss
        return np.add(base, fwht(mixed, self.threads)[: self.size], out=out)

    def adjoint(self, g: Floats) -> Floats:
        work = np.zeros(self._n, np.float32)
        work[: self.size] = g
        fwht(work, self.threads)
        work *= self._gauss
        mixed = np.empty(self._n, np.float32)
        mixed[self._order] = work
        return fwht(mixed, self.threads)[: self.dim] * self._sign[: self.dim] * self.inverse_norms


class Sparse(_Signed):
    """Entries nonzero with probability 1 / sqrt(D), then +-1 (Li, Hastie and Church 2006): O(d sqrt(D))."""

    kind = "sparse"

    def __init__(self, size: int, dim: int, seed: int, threads: int = 1) -> None:
        super().__init__(size, dim, seed, threads)
        key, threshold = key_of(seed, 1), np.uint64(round(2**31 / size**0.5))
        self._ends: dict[int, NDArray[np.int64]] = {}
        self._code: dict[int, NDArray] = {}

        def build(a: int, b: int) -> None:
            ends = np.empty(b - a, np.int64)
            count = loops.sparse_rows(key, threshold, a, b - a, dim, ends, np.empty(0, np.uint32))
            code = np.empty(max(count, 1), np.uint32)
            loops.sparse_rows(key, threshold, a, b - a, dim, ends, code)
            self._ends[a], self._code[a] = ends, code[:count]

        self._each(build)
        counts = np.zeros(dim)
        for code in self._code.values():
            counts += np.bincount(code >> 1, minlength=dim)
        self.inverse_norms = _inverse_roots(counts)

    def _put(self, z: Floats, start: int, base: Floats, out: Floats) -> None:
        loops.gather_rows(z, self._ends[start], self._code[start], base, out)

    def _take(self, g: Floats, start: int, sums: Sums) -> None:
        loops.scatter_rows(g, self._ends[start], self._code[start], sums)


class Dense(Projection):
    """Entries N(0, 1), stored: 4 D d bytes. The paper's first choice and the most expensive."""

    kind = "dense"

    def __init__(self, size: int, dim: int, seed: int, threads: int = 1) -> None:
        super().__init__(size, dim, seed, threads)
        self._columns = np.empty((dim, size), np.float32)
        energy = np.zeros(dim, np.int64)
        loops.normal_columns(key_of(seed, 1), 0, dim, normal_table(), self._columns, energy)
        self.inverse_norms = _inverse_roots(energy.astype(np.float64))

    def _put(self, z: Floats, start: int, base: Floats, out: Floats) -> None:
        loops.combine(z, self._columns[:, start : start + out.size], base, out)

    def _take(self, g: Floats, start: int, sums: Sums) -> None:
        loops.correlate(g, self._columns[:, start : start + g.size], sums)


PROJECTIONS: dict[str, type[Projection]] = {
    cls.kind: cls for cls in (Uniform, Cyclic, Fastfood, FastfoodFull, Sparse, Dense)
}
LARGE = 1 << 20
"""Parameters from which `cyclic` is the default: there its lead in speed begins to count."""


def default_kind(size: int) -> str:
    """The fast projection for so many parameters."""
    return "uniform" if size < LARGE else "cyclic"


def make(kind: str, size: int, dim: int, seed: int, threads: int = 1) -> Projection:
    """The projection of this kind; ValueError for an unknown one or where 1 <= dim <= size does not hold."""
    if kind not in PROJECTIONS:
        raise ValueError(f"no projection {kind!r}; known are {', '.join(PROJECTIONS)}")
    return PROJECTIONS[kind](size, dim, seed, threads)


def _inverse_roots(squares: Sums) -> Floats:
    """1 / sqrt, and 0 for a column that is empty."""
    with np.errstate(divide="ignore"):
        return np.where(squares > 0, 1 / np.sqrt(squares), 0).astype(np.float32)
