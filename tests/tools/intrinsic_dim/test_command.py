"""The tool as a user has it: a number found, resumed, divided, a network written, scored and expanded."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from bntools.cli import bntools
from bntools.cli import run as bntools_run
from bntools.core.errors import BnError
from bntools.tools.intrinsic_dim.control import Control
from bntools.tools.intrinsic_dim.descend import hopeless
from bntools.tools.intrinsic_dim.ledger import Ledger
from bntools.tools.intrinsic_dim.problem import Source, open_problem
from bntools.tools.intrinsic_dim.runs import Job


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    """Five clusters in 12 dimensions, mixed into 20."""
    random = np.random.default_rng(0)
    y = random.integers(0, 5, 3000)
    x = (
        (1.2 * random.normal(size=(5, 12))[y] + random.normal(size=(3000, 12)))
        @ random.normal(size=(12, 20))
        / 3
    )
    path = tmp_path_factory.mktemp("data") / "clusters.npz"
    np.savez(path, x=x.astype(np.float32), y=y)
    return str(path)


def call(*words, code: int = 0) -> dict:
    """Run in this process; returns the report, or what was said on standard error."""
    result = CliRunner().invoke(bntools, [*map(str, words)], standalone_mode=False)
    if code:
        error = result.exception
        assert isinstance(error, BnError), result.exception
        assert error.code == code, error.what
        return {"error": error.what}
    assert result.exception is None, result.exception
    return json.loads(result.stdout)


FEW = ("--model", "fc:16", "--epochs", 4, "--seeds", 2, "--threads", 1, "-q")


@pytest.fixture(scope="module")
def searched(data, tmp_path_factory):
    """A whole search with a folder of runs, a picture and a network."""
    folder = tmp_path_factory.mktemp("search")
    words = ("intrinsic-dim", "--data", data, *FEW, "--work", folder / "work", "--plot", folder / "p.svg")
    return call(*words, "-o", folder / "net.st"), folder, words


def test_the_dimension_of_a_small_problem_is_found(searched):
    report, _, _ = searched
    found = report["d_int90"]
    assert report["D"] == 421
    assert 20 < found["low"] <= found["value"] <= found["high"] < 140
    assert report["baseline"]["mean"] > 0.9
    assert report["target"] == pytest.approx(0.9 * report["baseline"]["mean"])
    fits = [row["fit"] for row in report["curve"]]
    assert fits == sorted(fits)
    assert all(row["lr"] > 0 for row in report["curve"])


def test_every_key_of_a_report_is_documented(searched):
    from cli.test_man import items, paths, section

    report, _, _ = searched
    known = items(section("bntools-intrinsic-dim.1", "JSON OUTPUT"))
    assert set(paths(report)) <= known
    text = section("bntools-intrinsic-dim.1", "JSON OUTPUT").replace(",", " ").split()
    assert {*report["runs"][0], *report["curve"][0]} <= set(text)


def test_the_same_command_again_trains_nothing(searched):
    report, folder, words = searched
    before = (folder / "work" / "runs.jsonl").read_bytes()
    again = call(*words)
    assert (folder / "work" / "runs.jsonl").read_bytes() == before
    assert again["seconds"]["runs"] == report["seconds"]["runs"] > 0
    for key in ("d_int90", "curve", "baseline", "runs"):
        assert again[key] == report[key]


def test_a_search_cut_short_goes_on_where_it_was(searched, tmp_path):
    report, folder, words = searched
    lines = (folder / "work" / "runs.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "points").mkdir()
    done = len(lines) - 6
    (tmp_path / "runs.jsonl").write_bytes(b"".join(lines[:done]) + lines[done][:30])
    for path in (folder / "work" / "points").iterdir():
        (tmp_path / "points" / path.name).write_bytes(path.read_bytes())
    again = call(*words[:-4], "--work", tmp_path)
    assert again["d_int90"] == report["d_int90"]
    kept = [json.loads(line)["key"] for line in (tmp_path / "runs.jsonl").read_bytes().splitlines()[:done]]
    assert [json.loads(line)["key"] for line in lines[:done]] == kept


def test_the_network_is_scored_and_expanded(searched, data, tmp_path):
    report, folder, _ = searched
    kept = report["network"]
    assert kept["bytes"] == kept["dim"] + 4
    assert kept["score"] == pytest.approx(kept["score_before_coding"], abs=0.02)
    scored = call("eval", folder / "net.st", "--data", data)
    assert scored["accuracy"]["value"] == kept["score"]
    assert scored["parameters"] == report["D"]
    manifest = call("export", folder / "net.st", "-o", tmp_path / "dense.st")
    assert manifest["kind"] == "network"
    assert sum(tensor.numel() for tensor in load_file(tmp_path / "dense.st").values()) == report["D"]
    assert call("eval", tmp_path / "dense.st", "--data", data)["accuracy"] == scored["accuracy"]
    assert call("info", folder / "net.st")["kind"] == "subspace"


def test_the_picture_shows_the_number(searched):
    from bntools.tools.intrinsic_dim.picture import _ticks, _title, draw

    report, folder, _ = searched
    assert "<svg" in (folder / "p.svg").read_text()[:500]
    draw(report, str(folder / "again.svg"))
    assert (folder / "again.svg").read_bytes() == (folder / "p.svg").read_bytes()
    found = report["d_int90"]
    low, value, high = (round(found[key]) for key in ("low", "value", "high"))
    assert _title(report) == f"fc:16 on clusters.npz: d_int90 = {value}, 95 %: {low} to {high}"
    # names of dimensions at the axis do not run into each other
    assert _ticks([14, 15, 17, 19, 20, 22, 31], [1, 4, 14, 15, 31]) == [1, 4, 14, 19, 31]


def test_a_bound_on_one_side_is_said_in_words():
    from bntools.tools.intrinsic_dim.report import interval

    assert interval({"value": 40.0, "low": None, "high": 40.0}) == "40 (40 or less)"
    assert interval({"value": 8.81, "low": 7.94, "high": None}) == "8.8 (7.9 or more)"
    assert interval({"value": 9.0, "low": 8.0, "high": None}) == "9 (8 or more)"
    assert interval({"value": 1234.0, "low": 900.0, "high": 2000.0}) == "1,234 (900 to 2,000)"
    assert interval({"value": None, "low": 400.0, "high": None}) == "not reached, more than 400"


@pytest.mark.slow
def test_processes_change_no_result(data, tmp_path):
    words = ("intrinsic-dim", "--data", data, *FEW[:-3], "-q", "--dims", "30,60")
    one, two = (call(*words, "--threads", n) for n in (1, 2))
    for key in ("d_int90", "curve", "baseline"):
        assert one[key] == two[key]


def test_parts_gathered_are_the_whole(data, tmp_path):
    words = ("intrinsic-dim", "--data", data, *FEW, "--epochs", 1, "--dims", "30,60")
    whole = call(*words)
    parts = (*words, "--work", tmp_path)
    assert "missing" in call(*parts, "--gather", code=3)["error"]
    for number in (2, 0, 1):
        assert call(*parts, "--shard", f"{number}/3")["kind"] == "part"
    gathered = call(*parts, "--gather")
    for key in ("d_int90", "curve", "baseline"):
        assert gathered[key] == whole[key]


def test_a_grid_has_a_cell_for_each_width_and_depth(data, tmp_path):
    words = (
        "intrinsic-dim",
        "--data",
        data,
        *FEW[2:],
        "--epochs",
        1,
        "--dims",
        "40,80",
        "--lr",
        "0.1",
        "--seeds",
        1,
    )
    report = call(*words, "--widths", "8,16", "--depths", "1,2", "--plot", tmp_path / "g.png")
    cells = {(cell["width"], cell["depth"]): cell for cell in report["grid"]}
    assert set(cells) == {(8, 1), (16, 1), (8, 2), (16, 2)}
    assert cells[16, 2]["model"] == "fc:16,16"
    assert (tmp_path / "g.png").read_bytes()[:4] == b"\x89PNG"


def test_batch_normalization_is_trained_written_and_read_back(data, tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def build(shape, classes):\n"
        "    return nn.Sequential(nn.Linear(shape[0], 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, classes))\n"
    )
    model = f"{tmp_path}/net.py:build"
    report = call("intrinsic-dim", "--data", data, "--model", model, *FEW[2:], "--dims", "150,300", "--lr", "0.1",
                  "-o", tmp_path / "net.st")  # fmt: skip
    stored = load_file(tmp_path / "net.st")
    assert stored["buffer.1.num_batches_tracked"] > 0
    assert stored["buffer.1.running_mean"].abs().max() > 0
    call("eval", tmp_path / "net.st", "--data", data, code=2)
    scored = call("eval", tmp_path / "net.st", "--data", data, "--model", model)
    assert scored["accuracy"]["value"] == report["network"]["score"]


@pytest.mark.slow
def test_fine_tuning_a_language_model_has_a_dimension_and_the_result_is_a_model(tmp_path):
    from bntools.core.text.documents import default_text

    (tmp_path / "task.jsonl").write_text(json.dumps({"text": default_text("calib")[:12_000]}) + "\n")
    words = ("intrinsic-dim", "--model", "default:", "--data", tmp_path / "task.jsonl", "--modules", "q_proj|v_proj",
             "--window", 64, "--seeds", 1, "--threads", 1, "-q", "--epochs", 3, "--threshold", "0.1")  # fmt: skip
    report = call(
        *words, "--projection", "said", "--dims", "40,400", "--lr", "0.01,0.03", "-o", tmp_path / "tuned.st"
    )
    floors = {run["floor"] for run in report["runs"]}
    assert len(floors) == 1, "every run starts from the model as it is"
    assert report["scored"] == "minus loss"
    assert report["baseline"]["mean"] > report["runs"][0]["floor"]
    assert report["reached"]
    assert call("export", tmp_path / "tuned.st", "-o", f"{tmp_path}/dense/")["kind"] == "model"
    assert (tmp_path / "dense" / "config.json").is_file()


def test_a_subspace_step_follows_the_gradient_that_autograd_gives(data):
    """The adjoint through hooks equals the gradient of the loss with theta = theta_0 + P z as a graph."""
    from bntools.tools.intrinsic_dim.descend import Subspace

    problem = open_problem(Source(model="fc:16", data=data))
    flat = problem.flat(0)
    projection = problem.projection(30, 0)
    mover = Subspace(flat, projection)
    problem.loss(flat, np.arange(64)).backward()
    mover.step(1e-9)
    zero = np.zeros(flat.size, np.float32)
    columns = [projection.apply(unit, zero, np.empty_like(zero)) for unit in np.eye(30, dtype=np.float32)]
    p = torch.from_numpy(np.stack(columns, 1))
    z = torch.zeros(30, requires_grad=True)
    theta = mover.theta0 + p @ z
    named = {
        name: theta[a:b].view(parameter.shape)
        for parameter, (name, a, b) in zip(flat.parameters, flat.spans, strict=True)
    }
    part = problem.data.train.at(np.arange(64))
    output = torch.func.functional_call(flat.module, named, (problem._inputs(part.x),))
    torch.nn.functional.cross_entropy(output, torch.from_numpy(part.y)).backward()
    assert torch.allclose(mover.z.grad, z.grad, atol=1e-6)


def test_a_warm_start_begins_where_the_narrow_run_ended(data):
    problem = open_problem(Source(model="fc:16", data=data, epochs=4))
    narrow = problem.run(Job(30, 0, 0.05))
    wide = problem.run(Job(60, 0, 1e-9, 0.1), (30, narrow.point))
    assert wide.floor == narrow.validation
    assert problem.run(Job(60, 0, 1e-9, 0.1)).floor < narrow.validation


def test_hopeless_runs_end_and_late_ones_do_not():
    assert hopeless([(0.25, 0.2), (0.5, 0.25)], 0.1, 0.9)
    assert not hopeless([(0.25, 0.2), (0.5, 0.6)], 0.1, 0.9)
    assert not hopeless([(0.25, 0.2), (0.5, 0.25)], 0.1, None)
    assert hopeless([(0.25, float("nan"))], 0.1, None)


def test_a_run_given_up_is_not_taken_for_one_with_a_lower_target(data, tmp_path):
    from bntools.tools.intrinsic_dim.execute import Runner

    source = Source(model="fc:16", data=data, epochs=4)
    problem = open_problem(source)
    runner = Runner(source, problem, Ledger(tmp_path), 1, lambda run: None)
    (run,) = runner([Job(2, 0, 1e-4, target=0.99)])
    assert run.outcome.stopped
    again = Runner(source, problem, Ledger(tmp_path), 1, lambda run: None)
    assert again.known(Job(2, 0, 1e-4, target=0.995)) is not None
    assert again.known(Job(2, 0, 1e-4, target=0.5)) is None
    assert again.known(Job(2, 0, 1e-4)) is None


def test_a_pole_is_balanced_in_few_dimensions_and_falls_without_learning():
    control = Control(Source(model="fc:20,20", env="cartpole", epochs=1.2))
    outcome = control.run(Job(25, 0, 0.25))
    assert outcome.floor < 60
    assert outcome.score > 150
    assert control.size == 562


def test_a_plan_names_runs_and_seconds_and_trains_nothing_whole(data, tmp_path):
    report = call("intrinsic-dim", "--data", data, *FEW, "--work", tmp_path / "w", "--dry-run")
    assert report["kind"] == "plan"
    assert 20 < report["runs"]["low"] < report["runs"]["high"] < 100
    assert report["seconds"]["low"] > 0
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    "words",
    [
        (), ("--data", "/nowhere"), ("--data", "{data}", "--env", "cartpole"), ("--data", "{data}", "--model", "fc:x"),
        ("--data", "{data}", "--shard", "1/2"), ("--data", "{data}", "--dims", "99999"),
        ("--data", "{data}", "--plot", "x.gif"), ("--data", "{data}", "--model", "lenet"),
        ("--data", "{data}", "--projection", "said", "--dims", "3"), ("--env", "pendulum", "-o", "x"),
        ("--data", "{data}", "--widths", "8", "-o", "x"), ("--data", "{data}", "--modules", "nothing"),
        ("--data", "{data}", "--modules", "(q_proj"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_a_usage_error_before_any_training(data, words):
    words = [word.replace("{data}", data) for word in words]
    assert call("intrinsic-dim", *words, "--threads", 1, code=2)["error"]


@pytest.mark.parametrize("value", ["0", "3,x", "", "-4", "1e99"])
def test_a_list_that_is_none_is_refused(value, capsys):
    assert bntools_run(["intrinsic-dim", "--data", "x", "--dims", value]) == 2
    assert "--dims" in capsys.readouterr().err


@pytest.mark.real
@pytest.mark.slow
def test_mnist_s_network_fits_a_kilobyte(tmp_path):
    from bntools.tools.fetch.obtain import fetch

    fetch("mnist", tmp_path / "mnist")
    words = (
        "intrinsic-dim",
        "--data",
        tmp_path / "mnist",
        "--dims",
        "650,850",
        "--lr",
        "0.2,0.4",
        "--seeds",
        1,
        "-q",
    )
    report = call(*words, "--threads", 2, "-o", tmp_path / "net.st")
    assert report["D"] == 199_210
    assert report["network"]["bytes"] < 1000
    assert report["network"]["score"] > 0.87
