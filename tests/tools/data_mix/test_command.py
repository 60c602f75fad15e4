"""data-mix as used in a shell."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
from support.mixtures import lines

MAN = Path(__file__).resolve().parents[3] / "man" / "man1" / "bntools-data-mix.1"


def paths(value, prefix=""):
    """Dotted paths of the leaves of a report, names of sources as SOURCE."""
    if not isinstance(value, dict):
        yield prefix
        return
    for key, inner in value.items():
        name = "SOURCE" if prefix.endswith(("mixture", "weights")) else key
        yield from paths(inner, f"{prefix}.{name}" if prefix else key)


def test_a_table_gives_the_mixture_its_law_was_planted_with(report, table):
    found = report(table(lines()), "--at", 1600)
    assert found["proposed"]["mixture"]["web"] == pytest.approx(0.4, abs=0.08)
    inside = found["proposed"]["predicted"]
    assert inside["low"] < 0.125 < inside["high"]
    assert sum(found["mixture"].values()) == pytest.approx(1, abs=1e-9)
    assert found["runs"]["count"] == 15


def test_renaming_and_reordering_sources_reorders_the_answer(report, table):
    first = report(table(lines()), "--at", 1600)
    turned = [{**line, "weights": {"x": line["weights"]["code"], "y": line["weights"]["web"]}} for line in lines()]
    second = report(table(turned, "turned.jsonl"), "--at", 1600)
    assert second["proposed"]["mixture"]["x"] == pytest.approx(first["proposed"]["mixture"]["code"], abs=0.02)
    assert second["predicted"]["value"] == pytest.approx(first["predicted"]["value"], rel=0.01)


def test_csv_pipe_and_json_lines_are_one_table(run, table, tmp_path):
    text = "web,code,n,metric,kind\n" + "".join(
        f"{r['weights']['web']},{r['weights']['code']},{r['n']},{r['metric']!r},error\n" for r in lines()
    )
    (tmp_path / "runs.csv").write_text(text)
    from_lines = run("data-mix", table(lines()), "--at", 1600)
    assert from_lines.returncode == 0, from_lines.stderr
    assert run("data-mix", tmp_path / "runs.csv", "--at", 1600).stdout == from_lines.stdout
    assert run("data-mix", "--at", 1600, data=text.encode()).stdout == from_lines.stdout
    assert run("data-mix", table(lines()), "--at", 1600, "--threads", 1).stdout == from_lines.stdout


def test_accuracy_is_one_minus_error(report, table):
    error = report(table(lines()), "--at", 1600)
    turned = [{**line, "metric": 1 - line["metric"], "kind": "accuracy"} for line in lines()]
    accuracy = report(table(turned, "turned.jsonl"), "--at", 1600)
    assert accuracy["mixture"] == error["mixture"]
    assert accuracy["predicted"]["value"] == pytest.approx(1 - error["predicted"]["value"], rel=1e-4)
    assert accuracy["predicted"]["low"] < accuracy["predicted"]["value"] < accuracy["predicted"]["high"] < 1


def test_shares_of_zero_and_one_are_moved_by_half_a_count(report, table):
    values = lines()
    values[0]["metric"], values[0]["trials"] = 0, 50
    assert report(table(values), "--at", 1600)["predicted"]["low"] > 0


def test_caps_prices_and_budget(report, table, tmp_path):
    (tmp_path / "prices.json").write_text('{"web": 1, "code": 4}')
    found = report(table(lines()), "--at", 1000, "--max", "web=0.9", "--prices", tmp_path / "prices.json", "--budget", 2000)
    assert found["mixture"]["web"] <= 0.9
    assert 1000 * (found["mixture"]["web"] + 4 * found["mixture"]["code"]) <= 2000 * (1 + 1e-5)
    spent = report(table(lines()), "--prices", "code=4", "--budget", 2000)
    cost = spent["mixture"]["web"] + 4 * spent["mixture"]["code"]
    assert spent["at"] * cost == pytest.approx(2000, rel=1e-4)


def test_next_runs_and_compared_methods_are_in_the_report(report, table):
    found = report(table(lines()), "--at", 1600, "--next", 2, "--compare")
    assert 0 < len(found["next"]) <= 2
    assert set(found["next"][0]) == {"weights", "n", "expected_gain", "cost"}
    assert set(found["methods"]) == {"joint", "projektor", "exp", "regmix", "bimix"}
    assert "loss for each source" in found["methods"]["bimix"]["error"]


def test_a_published_method_can_answer(report, table):
    found = report(table(lines()), "--at", 1600, "--method", "projektor")
    assert found["method"] == "projektor"
    assert found["predicted"]["low"] is None
    assert found["mixture"]["web"] == pytest.approx(0.4, abs=0.1)


def test_one_size_tells_nothing_of_another_unless_a_slope_is_assumed(call, report, table):
    one = table(lines(sizes=(400,)))
    status, _, err = call(one, "--at", 1600)
    assert status == 3
    assert "--slope" in err
    found = report(one, "--at", 1600, "--slope", 0.5)
    assert found["slope"]["value"] == pytest.approx(0.5, abs=0.1)
    assert report(one)["at"] == 400


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        ({"weights": {"web": -0.1, "code": 1.1}}, (), "run 1 has a weight below 0"),
        ({"weights": {"web": 0.5, "code": 0.6}}, (), "--normalize"),
        ({"metric": None}, (), "--allow-failed"),
        ({"metric": float("nan")}, (), "--allow-failed"),
        ({"metric": "x"}, (), "not a number"),
        ({"kind": "loss"}, (), "several kinds"),
        ({"kind": "speed"}, (), "kind"),
        ({"metric": 1.5}, (), "outside 0 to 1"),
        ({"n": 0}, (), "not above 0"),
        ({"weights": 3}, (), "no weights"),
        ({}, ("--max", "wab=0.3"), "wab, which is no source"),
        ({}, ("--max", "web=0.3,code=0.3"), "add up to 0.6"),
        ({}, ("--at", 1000, "--budget", 10), "cost 1000 at least"),
    ],
)
def test_a_bad_table_is_refused_by_name(call, table, change, words, message):
    values = lines()
    values[0] = {**values[0], **change}
    status, _, err = call(table(values), *words)
    assert status == 3
    assert message in err


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "no runs"),
        (lines()[:4], "2 mixtures of 2 sources"),
        ([{**line, "weights": {"web": 1}} for line in lines()], "one source"),
    ],
)
def test_too_little_is_refused_with_what_is_missing(call, table, values, message):
    status, _, err = call(table(values))
    assert status == 3
    assert message in err


def test_counts_and_failed_runs_are_accepted_where_asked_for(report, table):
    values = [{**line, "weights": {k: 40 * w for k, w in line["weights"].items()}} for line in lines()]
    values.append({**values[0], "metric": None})
    found = report(table(values), "--normalize", "--allow-failed")
    assert found["runs"]["failed"] == ["line 16"]
    assert "failed" in {w["name"] for w in found["warnings"]}


def test_far_targets_are_warned_of(report, table):
    assert "far" in {w["name"] for w in report(table(lines()), "--at", 1e6)["warnings"]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--method", "magic"), "magic"),
        (("--val", "v.safetensors"), "--val goes with sources"),
        (("--max", "web"), "SOURCE=NUMBER"),
        (("--sizes", "a,b"), "--sizes"),
        (("more.safetensors",), "beside a table"),
        (("--plot", "x.bmp"), "picture"),
        (("--on", "local", "--jobs", 2, "--work", "w"), "in no parts"),
    ],
)
def test_options_that_do_not_fit_are_usage_errors(call, table, words, message):
    status, _, err = call(table(lines()), *words)
    assert status == 2
    assert message in err


PILOTS = ("--sizes", "30,60,120", "--runs", 6, "--l2", 1, "--at", 400)


def test_sources_are_trained_and_answered(report, sources, tmp_path):
    words = (sources, "--val", tmp_path / "val.safetensors", *PILOTS, "--work", tmp_path / "w")
    found = report(*words)
    assert found["sources"] == ["code", "forum", "web"]
    assert set(found["baselines"]) == {"best_pilot", "uniform", "proportional", "best_single"}
    assert len(list((tmp_path / "w" / "pilots").iterdir())) == 18
    assert report(*words) == found, "resumed: nothing is trained again"
    files = [sources / f"{name}.safetensors" for name in ("code", "forum", "web")]
    assert report(*files, *words[1:]) == found


def test_parts_joined_are_the_whole(run, sources, tmp_path):
    words = ("data-mix", sources, "--val", tmp_path / "val.safetensors", *PILOTS)
    whole = run(*words)
    assert whole.returncode == 0, whole.stderr
    for index in (1, 0):
        part = run(*words, "--work", tmp_path / "w", "--shard", f"{index}/2")
        assert part.returncode == 0, part.stderr
    assert run(*words, "--work", tmp_path / "w", "--gather").stdout == whole.stdout
    placed = run(*words, "--on", "local", "--jobs", 2, "--work", tmp_path / "run")
    assert placed.returncode == 0, placed.stderr
    assert placed.stdout == whole.stdout


def test_gathering_too_early_is_refused(call, sources, tmp_path):
    status, _, err = call(sources, "--val", tmp_path / "val.safetensors", *PILOTS, "--work", tmp_path / "w", "--gather")
    assert status == 3
    assert "18 of 18 pilots" in err


def test_transport_is_an_input(report, sources, tmp_path):
    pytest.importorskip("ot")
    found = report(sources, "--val", tmp_path / "val.safetensors", *PILOTS, "--transport", "--label-cost", "gaussian",
                   "--method", "joint,projektor", "--compare")  # fmt: skip
    assert "error" not in found["methods"]["projektor"]


TRAINER = """
import json, sys
from safetensors.numpy import load_file
data = load_file(sys.argv[1])
share = (data["y"] == 0).mean()
if len(data["y"]) == 60 and share > 0.7 and len(sys.argv) > 3:
    sys.exit("out of memory")
json.dump({"metric": 0.2 + (share - 0.4) ** 2 + len(data["y"]) ** -0.5, "kind": "loss"}, open(sys.argv[2], "w"))
"""


def train_command(tmp_path, *more):
    (tmp_path / "train.py").write_text(TRAINER)
    return shlex.join([sys.executable, str(tmp_path / "train.py")]) + " {data} {metrics} " + " ".join(more)


def test_an_own_trainer_gets_the_drawn_rows(report, sources, tmp_path):
    words = ("--sizes", "30,60,120", "--runs", 6, "--at", 300)
    found = report(sources, "--train", train_command(tmp_path), *words)
    assert found["metric"] == "loss"
    assert 0.1 < found["predicted"]["value"] < 0.5


def test_a_trainer_that_fails_says_its_last_line_and_the_rest_is_kept(call, report, sources, tmp_path):
    words = (sources, "--train", train_command(tmp_path, "break"), "--sizes", "30,60,120", "--runs", 6, "--work", tmp_path / "w")
    status, _, err = call(*words)
    assert status == 1
    assert "out of memory" in err
    assert list((tmp_path / "w" / "pilots").iterdir())
    assert report(*words, "--allow-failed")["runs"]["failed"]


@pytest.mark.parametrize(("words", "code", "message"), [
    (("--train", "python train.py"), 2, "{data}"),
    ((), 2, "no --val"),
    (("--train", "true {data}"), 1, "no JSON"),
    (("--val", "missing.safetensors"), 2, "missing"),
])  # fmt: skip
def test_a_job_that_cannot_start_says_why(call, sources, words, code, message):
    status, _, err = call(sources, *words)
    assert status == code
    assert message in err


def test_sources_that_do_not_fit_are_refused(call, sources, tmp_path):
    import numpy as np
    from safetensors.numpy import load_file, save_file

    val = load_file(tmp_path / "val.safetensors")
    save_file({"x": val["x"], "y": val["y"] + 5}, tmp_path / "far.safetensors")
    status, _, err = call(sources, "--val", tmp_path / "far.safetensors")
    assert (status, "no source has" in err) == (3, True)
    save_file({"x": np.zeros((9, 5), np.float32), "y": np.zeros(9, int)}, sources / "wide.safetensors")
    status, _, err = call(sources, "--val", tmp_path / "val.safetensors")
    assert (status, "features" in err) == (3, True)
    status, _, err = call(sources / "web.safetensors", "--val", tmp_path / "val.safetensors")
    assert (status, "one source" in err) == (3, True)


def test_a_dry_run_writes_nothing(report, sources, tmp_path):
    found = report(sources, "--val", tmp_path / "val.safetensors", *PILOTS, "--dry-run")
    assert (found["kind"], found["pilots"], found["rows_to_train_on"]) == ("plan", 18, 6 * 210)


@pytest.mark.parametrize("sizes", [2, 3])
def test_pictures_are_drawn_the_same_twice(call, table, tmp_path, sizes):
    pytest.importorskip("matplotlib")
    values = lines() if sizes == 2 else [
        {**line, "weights": {**{k: w / 2 for k, w in line["weights"].items()}, "forum": 0.5 if i < 9 else 0.0}}
        for i, line in enumerate(lines())
    ]  # fmt: skip
    for line in values:
        total = sum(line["weights"].values())
        line["weights"] = {k: w / total for k, w in line["weights"].items()}
    for name in ("a.svg", "b.svg"):
        assert call(table(values), "--at", 1600, "--plot", tmp_path / name)[0] == 0
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_the_manual_explains_every_key_of_the_report(report, table):
    found = report(table(lines()), "--at", 1600, "--next", 1, "--compare")
    text = re.sub(r"\\&", "", MAN.read_text())
    for path in set(paths(found)):
        key = path.split(".")[0]
        assert re.search(rf"^\.It Li .*\b{key}\b", text, re.MULTILINE), path
    assert json.dumps(found)
