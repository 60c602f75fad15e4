"""The null of a run is that of any other with as many rows: kept between runs, and the same without a cache."""

from __future__ import annotations

import numpy as np
import pytest

from bntools.tools.screen.outcome import Outcome, continuous
from bntools.tools.screen.scoring import kept
from bntools.tools.screen.scoring.laws import RankLaw
from bntools.tools.screen.scoring.null import permuted
from bntools.tools.screen.scoring.statistics import rank_statistic
from bntools.tools.screen.settings import Settings

N = 60


def outcomes(seed):
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.repeat([0, 1, 2], [10, 30, 20]))
    return continuous(rng.standard_normal(N), None), Outcome(codes, codes.astype(float), ("a", "b", "c"))


@pytest.mark.parametrize("method", ["auto", "kde", "bins", "knn"])
@pytest.mark.parametrize("which", [0, 1])
def test_it_is_the_same_cold_warm_damaged_and_without_a_cache(method, which, tmp_path, monkeypatch):
    settings = Settings("y", method=method)

    def null(seed):
        return RankLaw(settings, outcomes(seed)[which], 1000, key=1, keep=True).null.values

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cold = null(0)
    (file,) = (tmp_path / "cache" / "bntools" / "nulls").iterdir()
    monkeypatch.setattr(kept, "_keep", lambda *a: pytest.fail("drawn a second time"))
    assert (null(1) == cold).all(), "of another outcome of as many rows"
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file.write_bytes(file.read_bytes()[:100])
    assert (null(0) == cold).all()
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))
    assert (null(0) == cold).all(), "a file in place of the folder"


@pytest.mark.parametrize("which", [0, 1])
def test_the_law_is_that_of_the_outcome_itself(which, tmp_path, monkeypatch):
    """Kolmogorov and Smirnov's distance of 4,000 draws each way; the 99.9 % point is 1.95 sqrt(2 / 4000)."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    settings, outcome = Settings("y", method="kde"), outcomes(3)[which]
    law = RankLaw(settings, outcome, 4000, key=1, keep=True).null.values
    score = rank_statistic(settings, outcome).score
    direct = np.sort(permuted(lambda o: score(o, outcome), N, 4000, np.random.default_rng(9)))
    both = np.concatenate([law, direct])
    distance = (
        np.abs(np.searchsorted(law, both, "right") - np.searchsorted(direct, both, "right")).max() / 4000
    )
    assert distance < 1.95 * np.sqrt(2 / 4000)


def test_other_sizes_seeds_and_classes_are_other_files(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    number, classes = outcomes(0)
    for settings, outcome in (
        (Settings("y"), number), (Settings("y", seed=1), number), (Settings("y", bandwidth=1.5), number),
        (Settings("y"), classes), (Settings("y"), number.subset(np.arange(50))), (Settings("y", method="kde"), number),
    ):  # fmt: skip
        RankLaw(settings, outcome, 200, key=1, keep=True)
    assert len(list((tmp_path / "bntools" / "nulls").iterdir())) == 6
