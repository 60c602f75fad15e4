"""bntools screen: what is planted is selected, what is not is not, and damaged columns are counted and left out."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bntools import cli
from bntools.core.datasets.tables import open_table
from bntools.core.errors import BnError
from bntools.tools.screen.outcome import read_outcome
from bntools.tools.screen.run import screen
from bntools.tools.screen.scoring.null import fit_null
from bntools.tools.screen.scoring.select import q_values, shadow_threshold
from bntools.tools.screen.settings import Settings

PAGE = Path(__file__).resolve().parents[3] / "man" / "man1" / "bntools-screen.1"
ROWS = 300


@contextlib.contextmanager
def silent(what, total):
    yield lambda count: None


def planted(seed: int = 0, columns: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """x [n, p] and y, which is a sum of a linear, a square and an absolute effect of columns 0 to 2 and noise."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((ROWS, columns)).astype(np.float32)
    y = x[:, 0] + (x[:, 1] ** 2 - 1) / 1.4 + (np.abs(x[:, 2]) - 0.8) / 0.6 + 0.5 * rng.standard_normal(ROWS)
    return x, y


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> str:
    x, y = planted()
    x[:, 10], x[:, 11] = 3.0, np.nan  # constant; nothing known
    x[:20, 12] = np.nan
    x[:, 13] = np.round(x[:, 1])  # few values, and related to y
    x[::2, 14] = 0  # heavy ties
    path = tmp_path_factory.mktemp("screen") / "wide.safetensors"
    save_file({"x": x, "y": y, "c": (y > 0.5).astype(np.int64)}, path)
    return str(path)


def run(path: str, **options):
    options = {"target": "y", "permutations": 3000, **options}
    with open_table(path) as table:
        result = screen(table, Settings(**options), silent)
        return result, [table.name(int(result.positions[i])) for i in result.order]


@pytest.mark.parametrize("method", ["auto", "kde", "bins"])
@pytest.mark.parametrize("target", ["y", "c"])
def test_nonlinear_effects_are_selected_that_correlation_does_not_see(wide, method, target):
    result, names = run(wide, method=method, target=target)
    assert {"x.0", "x.1"} <= set(names[:6])
    linear = dict(zip(names, result.linear[result.order], strict=True))
    assert linear["x.1"] > 0.001
    selected = {names[i] for i in range(result.selected.sum())}
    assert "x.1" in selected
    assert len(selected - {"x.0", "x.1", "x.2", "x.13", "y", "c"}) <= 1


@pytest.mark.parametrize("method", ["xi", "pearson", "knn", "fftkde"])
def test_the_other_methods_rank_the_outcome_itself_high(wide, method):
    result, names = run(wide, method=method, target="y")
    assert "c" in names[:3]
    assert np.isnan(result.scored.p).all() == (method == "fftkde")


def test_constant_missing_and_tied_columns_are_counted(wide):
    result, _ = run(wide)
    by_position = dict(zip(result.positions.tolist(), range(len(result.positions)), strict=True))
    with open_table(wide) as table:
        at = [by_position[table.position(f"x.{i}")] for i in (10, 11, 12, 13, 14)]
    scored = result.scored
    assert np.isnan(scored.score[at[:2]]).all()
    assert not np.isnan(scored.score[at[2:]]).any()
    assert scored.missing[at].tolist() == [0, ROWS, 20, 0, 0]
    assert scored.distinct[at[0]] == 1
    assert scored.distinct[at[3]] < 12


def test_order_of_rows_and_threads_change_nothing_that_matters(wide, tmp_path):
    one, names = run(wide)
    two, again = run(wide, threads=3)
    assert names == again
    np.testing.assert_array_equal(one.scored.score, two.scored.score)
    np.testing.assert_array_equal(one.scored.p, two.scored.p)
    np.testing.assert_array_equal(one.best.values, two.best.values)


def test_the_best_columns_come_with_their_values_in_the_order_of_the_table(wide):
    result, _ = run(wide)
    with open_table(wide) as table:
        for position, values in zip(result.best.positions, result.best.values, strict=True):
            np.testing.assert_array_equal(values, table.column(table.name(int(position))).astype(np.float32))


def test_a_covariate_that_drives_both_is_taken_out(tmp_path):
    rng = np.random.default_rng(1)
    z = rng.standard_normal(ROWS)
    x = rng.standard_normal((ROWS, 40))
    x[:, 0] += 2 * z
    y = x[:, 1] + 2 * z + 0.3 * rng.standard_normal(ROWS)
    save_file({"x": x, "y": y, "z": z}, tmp_path / "t.safetensors")
    _, plain = run(str(tmp_path / "t.safetensors"))
    result, names = run(str(tmp_path / "t.safetensors"), covariates=("z",))
    assert plain[1] == "x.0"
    assert names[0] == "x.1"
    assert "z" not in names
    p = dict(zip(names, result.scored.p[result.order], strict=True))
    assert p["x.0"] > 0.001


def test_p_values_are_uniform_where_nothing_is_said():
    x, _ = planted(columns=400)
    rng = np.random.default_rng(7)
    tables = {"x": x, "y": rng.standard_normal(ROWS), "c": rng.integers(0, 3, ROWS)}
    x[:40, 0:60] = np.nan
    x[:, 60:120] = np.round(x[:, 60:120])
    for target in ("y", "c"):
        path = f"/dev/shm/screen-{rng.integers(1 << 40)}.safetensors"
        save_file(tables, path)
        try:
            result, _ = run(path, target=target)
        finally:
            Path(path).unlink()
        for part in (slice(0, 60), slice(60, 120), slice(120, 400)):
            p = np.sort(result.scored.p[np.isin(result.positions, np.arange(402))][part])
            distance = np.abs(p - (np.arange(len(p)) + 0.5) / len(p)).max()
            assert distance < 2.2 / np.sqrt(len(p))  # Kolmogorov: 1 in 8,000


def test_the_tail_of_the_null_errs_on_the_safe_side():
    rng = np.random.default_rng(0)
    sums = (rng.standard_normal((400_000, 3)) ** 2).sum(1)
    null = fit_null(sums[:20_000])
    for rate in (1e-2, 1e-3, 1e-4):
        p, extrapolated = null.p_values(np.array([np.quantile(sums, 1 - rate)]))
        assert 0.6 * rate < p[0] < 2.5 * rate
        assert extrapolated[0] == (rate < 50 / 20_000)


def test_adjusted_p_values_are_those_of_benjamini_and_hochberg():
    p = np.array([0.01, 0.04, 0.03, 0.005, np.nan])
    np.testing.assert_allclose(q_values(p), [0.02, 0.04, 0.04, 0.02, np.nan])
    np.testing.assert_allclose(
        q_values(p, "by"), np.minimum(np.array([0.02, 0.04, 0.04, 0.02, np.nan]) * (25 / 12), 1)
    )


def test_the_shadow_threshold_counts_columns_below_their_copies():
    scores = np.array([9, 8, 7, 6, 5, 4, 3, 2, 1, 0.5, np.nan])
    assert shadow_threshold(scores, np.zeros(11), 0.1) == 0.5
    assert shadow_threshold(scores, scores + 1, 0.1) == np.inf


def test_what_is_an_outcome_and_what_is_not():
    assert read_outcome(np.arange(40) % 3, "integer", "auto", "t")[0].classes == ("0", "1", "2")
    assert not read_outcome(np.arange(40), "integer", "auto", "t")[0].classes
    outcome, rows = read_outcome(np.array(["a", "", *"ab" * 10], object), "text", "auto", "t")
    assert outcome.classes == ("a", "b")
    assert len(rows) == 21
    for column, kind, wanted, code in (
        (np.ones(20), "number", "auto", 3),
        (np.full(20, np.nan), "number", "auto", 3),
        (np.array(["a", "b"] * 9, object), "text", "continuous", 2),
        (np.arange(20), "integer", "class", 3),
    ):
        with pytest.raises(BnError) as error:
            read_outcome(column, kind, wanted, "t")
        assert error.value.code == code


@pytest.fixture
def inside(capsys):
    def call(*words):
        status = cli.run(["screen", *map(str, words)])
        return status, *capsys.readouterr()

    return call


def test_a_pipe_gets_a_table_and_json_a_report_with_the_documented_keys(run, inside, wide, tmp_path):
    out = tmp_path / "best.safetensors"
    status, text, notes = inside(wide, "--target", "c", "--top", "7", "-o", out, "--permutations", 2000)
    assert status == 0
    assert "constant" in notes
    report = json.loads(text)
    assert report["bntools"] == 1
    with open_table(str(out)) as table:
        assert len(table) == 8
        assert table.classes == {"c": ["0", "1"]}
        assert table.name(0) == report["best"][0]["name"]
    page = PAGE.read_text()
    for key in keys(report):
        assert re.search(rf"\b{re.escape(key)}\b", page.replace("\\", "")), key
    piped = run("screen", wide, "--target", "c", "--top", "7", "--permutations", 2000)
    assert piped.returncode == 0
    assert piped.stdout[8:9] == b"{"
    assert b"__metadata__" in piped.stdout[:40]


def keys(value) -> set[str]:
    if isinstance(value, list):
        return set().union(*map(keys, value)) if value else set()
    if not isinstance(value, dict):
        return set()
    own = {key for key in value if key not in ("classes",)}
    return own.union(*(keys(v) for key, v in value.items() if key in own), {"classes"} & set(value))


def test_only_selected_columns_are_written_with_fdr(inside, wide, tmp_path):
    status, text, _ = inside(
        wide, "--target", "y", "--fdr", "0.05", "-o", tmp_path / "o", "--permutations", 2000
    )
    assert status == 0
    with open_table(str(tmp_path / "o")) as table:
        assert len(table) == json.loads(text)["selected"] + 1


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--target", "nothing"], 2, "no column nothing"),
        (["--target", "x.10"], 3, "on every row"),
        (["--target", "y", "--covariates", "y"], 2, "target and a covariate"),
        (["--target", "y", "--method", "fftkde", "--fdr", "0.1"], 2, "no p-values"),
        (["--target", "y", "--method", "pearson", "--covariates", "c"], 2, "goes with ranks"),
        (["--target", "x.11"], 3, "known on 0 rows"),
    ],
)
def test_what_cannot_be_done_is_said(inside, wide, words, code, message):
    status, _, text = inside(wide, *words, "--json")
    assert status == code
    assert message in text


def test_a_plan_reads_no_column(inside, wide):
    status, text, _ = inside(wide, "--target", "y", "--dry-run", "--json")
    assert status == 0
    assert json.loads(text)["columns"] == 122


def test_a_picture_is_drawn(inside, wide, tmp_path):
    words = ["--target", "y", "--plot", tmp_path / "p.svg", "--json", "--permutations", 2000]
    assert inside(wide, *words)[0] == 0
    assert (tmp_path / "p.svg").read_bytes().startswith(b"<?xml")


@pytest.mark.parametrize("control", ["bh", "shadow"])
def test_parts_make_what_one_pass_makes(tmp_path, control):
    """Every score, selection and column that is passed on, whatever the number of parts."""
    rng = np.random.default_rng(3)
    y = rng.standard_normal(120)
    x = rng.standard_normal((120, 37))
    x[:, 5] += 2 * y
    np.savetxt(tmp_path / "t.csv", np.column_stack([x, y]), delimiter=",",
               header=",".join([*(f"c{i}" for i in range(37)), "y"]), comments="")  # fmt: skip
    words = [
        "screen",
        str(tmp_path / "t.csv"),
        "--target",
        "y",
        "--permutations",
        "1000",
        "--control",
        control,
        "-q",
    ]
    assert cli.run([*words, "-o", str(tmp_path / "whole.st")]) == 0
    for index in range(3):
        assert cli.run([*words, "--shard", f"{index}/3", "-o", str(tmp_path / f"part{index}.st")]) == 0
    parts = [word for index in (2, 0, 1) for word in ("--gather", str(tmp_path / f"part{index}.st"))]
    assert cli.run([*words, *parts, "-o", str(tmp_path / "joined.st")]) == 0
    one, other = load_file(tmp_path / "whole.st"), load_file(tmp_path / "joined.st")
    assert sorted(one) == sorted(other)
    assert all(np.array_equal(one[name], other[name]) for name in one)
    assert cli.run([*words, *parts[:4]]) == 3, "a part is missing"
    assert cli.run([*words, "--permutations", "2000", *parts]) == 3, "parts of another run"
    assert cli.run([*words, "--work", str(tmp_path / "w")]) == 2
