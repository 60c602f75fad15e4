"""The cache: what it returns has the sha256 asked for, and nothing half-made stays."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bntools.core.datasets import cache
from bntools.core.errors import FAILED, BnError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "bntools" / "files"


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def never(path: Path) -> None:
    pytest.fail("produced again what the cache had")


def visible(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if not path.name.endswith(".stamp")]


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200))
def test_a_thing_is_produced_once_and_then_comes_from_the_cache(data: bytes) -> None:
    first = cache.cached("thing", digest(data), lambda path: path.write_bytes(data) and None)
    assert first.read_bytes() == data
    assert cache.cached("thing", digest(data), never) == first


def test_another_content_than_asked_for_is_refused_with_both_digests(folder: Path) -> None:
    expected, found = digest(b"right"), digest(b"wrong")
    with pytest.raises(BnError, match=f"{found}.*{expected}") as caught:
        cache.cached("thing", expected, lambda path: path.write_bytes(b"wrong") and None)
    assert caught.value.code == FAILED
    assert visible(folder) == []


def test_a_failing_or_interrupted_producer_leaves_nothing(folder: Path) -> None:
    def interrupted(path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.cached("thing", digest(b"whole"), interrupted)
    assert visible(folder) == []


def test_a_damaged_cached_file_is_produced_anew() -> None:
    path = cache.cached("thing", digest(b"right"), lambda path: path.write_bytes(b"right") and None)
    path.write_bytes(b"wrong")
    os.utime(path, (0, 0))
    again = cache.cached("thing", digest(b"right"), lambda path: path.write_bytes(b"right") and None)
    assert again.read_bytes() == b"right"


def test_an_unchanged_file_is_not_hashed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    path = cache.cached("thing", digest(b"right"), lambda path: path.write_bytes(b"right") and None)
    hashed: list[Path] = []
    real = cache.sha256_file
    monkeypatch.setattr(cache, "sha256_file", lambda path: hashed.append(path) or real(path))
    cache.cached("thing", digest(b"right"), never)
    assert hashed == []
    os.utime(path, (1, 1))
    cache.cached("thing", digest(b"right"), never)
    assert hashed == [path]
    cache.cached("thing", digest(b"right"), never)
    assert hashed == [path]


def test_callers_that_race_all_get_the_whole_file(folder: Path) -> None:
    data = os.urandom(1 << 20)

    def slow(path: Path) -> None:
        with open(path, "wb", buffering=0) as file:
            for start in range(0, len(data), 1 << 14):
                file.write(data[start : start + (1 << 14)])

    with ThreadPoolExecutor(8) as pool:
        results = [pool.submit(cache.cached, "thing", digest(data), slow) for _ in range(16)]
        assert all(result.result().read_bytes() == data for result in results)
    assert len(visible(folder)) == 1


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(BnError, match="cannot use the cache") as caught:
        cache.cached("thing", digest(b""), never)
    assert "XDG_CACHE_HOME" in caught.value.hint


def test_the_oldest_files_go_first(tmp_path: Path) -> None:
    for age in range(5):
        (tmp_path / str(age)).write_bytes(b"")
        os.utime(tmp_path / str(age), (1000 - age, 1000 - age))
    cache.keep_newest(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]
