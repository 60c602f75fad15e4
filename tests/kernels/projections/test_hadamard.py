"""The Walsh-Hadamard transform against its definition, on any number of threads."""

from __future__ import annotations

import numpy as np
import pytest

from bntools.kernels.projections.hadamard import fwht


def hadamard(x: np.ndarray) -> np.ndarray:
    """The specification: butterflies of growing distance, in float64."""
    x = x.astype(np.float64)
    h = 1
    while h < len(x):
        pairs = x.reshape(-1, 2, h)
        x = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], 1).reshape(-1)
        h *= 2
    return x


@pytest.mark.parametrize("power", range(19))
def test_every_length_gives_what_the_definition_gives(power):
    x = np.random.default_rng(power).normal(size=1 << power).astype(np.float32)
    wanted = hadamard(x)
    found = fwht(x.copy())
    assert np.abs(found - wanted).max() <= 1e-6 * (power + 1) * np.sqrt(1 << power) * 5


def test_entries_are_signs_by_the_parity_of_common_bits():
    unit = np.zeros(1 << 14, np.float32)
    unit[5000] = 1
    parity = np.array([bin(i & 5000).count("1") % 2 for i in range(1 << 14)])
    assert np.array_equal(fwht(unit), 1 - 2.0 * parity)


def test_twice_is_the_length_times_the_identity():
    x = np.random.default_rng(0).integers(-8, 8, 1 << 15).astype(np.float32)
    assert np.array_equal(fwht(fwht(x.copy())), x * (1 << 15))


def test_threads_change_no_bit():
    x = np.random.default_rng(1).normal(size=1 << 18).astype(np.float32)
    assert fwht(x.copy(), threads=1).tobytes() == fwht(x.copy(), threads=3).tobytes()


@pytest.mark.parametrize("length", [0, 3, 12])
def test_a_length_that_is_no_power_of_two_is_refused(length):
    with pytest.raises(ValueError, match="power of two"):
        fwht(np.zeros(length, np.float32))
