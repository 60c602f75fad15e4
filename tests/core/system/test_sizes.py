"""Sizes as a user writes them."""

from __future__ import annotations

import pytest

from bntools.core.errors import USAGE, BnError
from bntools.core.system.sizes import parse_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("90MB", 90_000_000),
        ("1.5 kb", 1500),
        ("2MiB", 2 << 20),
        ("7", 7),
        ("60000000B", 60_000_000),
        ("1GiB", 1 << 30),
    ],
)
def test_units_of_ten_and_of_two(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-1MB", "3XB", "1e6", "0", "0MB"])
def test_what_is_no_size_is_refused_by_name(text):
    with pytest.raises(BnError, match="--truncate") as caught:
        parse_bytes(text, "--truncate")
    assert caught.value.code == USAGE
