"""Vocabularies, stored forms and scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bntools.core.errors import BnError
from bntools.core.methods.embedding import decode, fields, scores, shares, stored


def test_whole_numbers_are_one_value_however_a_file_writes_them():
    fitted = fields.fit_fields({"a": np.array([1.0, 2.0, 2.0, np.nan])})
    assert fitted[0].values == ["2", "1", fields.MISSING]
    ids = fields.encode(fitted, {"a": np.array(["2", "1", "", "7", "8"], object)})
    assert ids.ids[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert ids.unseen == [["7", "8"]]


def test_tables_share_the_numbers_of_unseen_values():
    fitted = fields.fit_fields({"a": np.array([5, 5, 6])})
    (first, second), unseen = fields.joined(fitted, [{"a": np.array([9, 5])}, {"a": np.array([6, 9])}])
    assert first[0, 0] == second[1, 0] == 2
    assert unseen == [["9"]]


@given(st.lists(st.text(), min_size=1))
def test_a_vocabulary_survives_any_text(values):
    assert stored.parse_vocabulary(stored.vocabulary_text(values)) == values


@given(st.sets(st.integers(0, 5000)))
def test_positions_survive_as_gaps(where):
    index = np.array(sorted(where), np.int64)
    assert np.array_equal(decode.positions(decode.gaps(index)), index)


@given(st.integers(2, 8), st.lists(st.integers(0, 255)))
def test_codes_survive_packing(bits, values):
    codes = np.array(values, np.uint8) & np.uint8((1 << bits) - 1)
    packed = decode.pack(codes, bits)
    assert packed.nbytes == -(-bits * len(codes) // 8)
    assert np.array_equal(decode.unpack(packed, bits, len(codes)), codes)


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2).filter(
        lambda x: 0 < sum(y for y, _ in x) < len(x)
    )
)
def test_auc_is_the_share_of_pairs_in_order_with_ties_a_half(rows):
    y, s = np.array([float(a) for a, _ in rows]), np.array([float(b) for _, b in rows])
    pairs = [(a > b) + (a == b) / 2 for a in s[y == 1] for b in s[y == 0]]
    assert scores.placements(y, s).auc == pytest.approx(np.mean(pairs))


def test_errors_of_auc_and_of_paired_differences_are_those_of_new_samples():
    """Standard deviation over 300 draws against the mean of DeLong's errors; both within 15 %, 4 standard errors."""
    rng, values, errors, gaps, stated = np.random.default_rng(0), [], [], [], []
    for _ in range(300):
        y = (rng.random(400) < 0.4).astype(float)
        a = y + rng.standard_normal(400)
        b = a + 0.7 * rng.standard_normal(400)
        one, two = scores.auc(y, a), scores.auc_difference(y, a, b)
        values.append(one["value"])
        errors.append((one["high"] - one["value"]) / 1.96)
        gaps.append(two["mean"])
        stated.append(two["se"])
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.17)
    assert np.mean(stated) == pytest.approx(np.std(gaps), rel=0.17)


def test_log_loss_and_calibration_of_known_probabilities():
    p = np.array([0.8, 0.8, 0.8, 0.8, 0.8])
    y = np.array([1.0, 1, 1, 1, 0])
    assert scores.log_loss(y, np.log(p / (1 - p))) == pytest.approx(-(4 * np.log(0.8) + np.log(0.2)) / 5)
    assert scores.calibration_error(np.tile(y, 15), np.tile(p, 15)) < 0.3


def test_budgets():
    assert shares.parse_budgets("1/2..1/8") == (0.5, 0.25, 0.125)
    assert shares.parse_budgets("1/3,0.1") == (1 / 3, 0.1)
    assert shares.budget_name(1 / 16) == "1/16"
    for wrong in ("", "2", "0", "1/0", "x", "1/8..1/2", "-1/4"):
        with pytest.raises(BnError) as error:
            shares.parse_budgets(wrong)
        assert error.value.code == 2
