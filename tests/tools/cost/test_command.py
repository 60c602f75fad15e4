"""bntools cost as a user meets it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.tiny_configs import build, small_config

from bntools import cli
from bntools.core.architecture.shapes.layers import model_shape
from bntools.core.artifact.reader import open_path
from bntools.core.methods.devices import device_names, open_device, parse_device
from bntools.tools.cost import Settings, estimate, weights_of_config, weights_of_tensors

PAGE = Path(__file__).resolve().parents[3] / "man" / "man1" / "bntools-cost.1"
LLAMA = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 128, "dtype": "bfloat16"}  # fmt: skip
SLOW = {"name": "slow", "peak": {"fp32": 1e9}, "bandwidth": 1e8, "memory": 1e6}


@pytest.fixture
def call(capsys):
    def run(*words):
        status = cli.run(["cost", *map(str, words)])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    (tmp_path / "slow.json").write_text(json.dumps(SLOW))
    return tmp_path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    build(small_config("llama")).save_pretrained(folder)
    return folder


def test_the_report_has_what_the_page_says(call, files):
    words = ("config.json", "--device", "slow", "--batch", "1,8", "--prompt", 5, "--generate", 3)
    status, out, _ = call(*words)
    report = json.loads(out)
    assert (status, report["kind"], len(report["runs"])) == (0, "cost", 2)
    page = PAGE.read_text()
    known = set(re.findall(r"[a-z][a-z_0-9]+", page))
    for part in (report, report["model"], report["kv"], report["runs"][0], report["runs"][0]["prefill"],
                 report["runs"][0]["decode"], report["devices"]["slow"], report["requests"][0]):  # fmt: skip
        assert set(part) <= known


def test_a_ceiling_is_worked_out_by_hand(call, files):
    """One token at a context of one: every weight is read once, each part slower by its bytes than by its FLOPs."""
    report = json.loads(call("config.json", "--device", "slow", "--context", 1)[1])
    decode = report["runs"][0]["decode"]
    layer = 64 * 64 * 2 + 2 * 64 * 32 + 3 * 64 * 96
    weights = 2 * (2 * (layer + 2 * 64) + 64 + 128 * 64 + 64)  # the table by one row, the head whole
    cache = 2 * 2 * (2 * 2 * 16) * 2
    assert decode["bytes_weights"] == weights
    assert decode["bytes_kv"] == cache
    assert decode["flops"] == 2 * (2 * (layer + 2 * 64) + 128 * 64)
    assert decode["tokens_per_s"]["slow"]["value"] == pytest.approx(1e8 / (weights + cache))


def test_parts_at_once_are_never_slower_than_one_after_another(files):
    shape = model_shape(LLAMA)
    device = parse_device(SLOW, "slow")
    for batch in (1, 4, 64):
        rates = []
        for overlap in (False, True):
            settings = Settings(batches=(batch,), contexts=(64,), overlap=overlap)
            report = estimate(shape, weights_of_config(shape), [device], settings)
            rates.append(report["runs"][0]["decode"]["tokens_per_s"]["slow"]["value"])
        assert rates[0] <= rates[1] * (1 + 1e-12)


def test_what_fits_and_where_compute_limits_are_the_last_and_first_that_do(files):
    shape, device = model_shape(LLAMA), parse_device(SLOW, "slow")
    report = estimate(shape, weights_of_config(shape), [device], Settings(contexts=(16,)))
    limits = report["devices"]["slow"]
    longest, batch = limits["max_context"], limits["compute_bound_batch"]
    token = report["kv"]["bytes_per_token"]
    assert report["model"]["weight_bytes"] + longest * token <= 1e6
    assert report["model"]["weight_bytes"] + (longest + 1) * token > 1e6
    bounds = [
        estimate(shape, weights_of_config(shape), [device], Settings(batches=(n,), contexts=(16,)))["runs"][0]
        ["decode"]["tokens_per_s"]["slow"]["bound"] for n in (batch - 1, batch + 1)
    ]  # fmt: skip
    assert bounds == ["memory", "compute"]


def test_headers_and_config_agree_on_a_dense_checkpoint(call, model):
    from_headers = json.loads(call(model)[1])
    from_config = json.loads(call(model / "config.json")[1])
    assert (from_headers["model"]["source"], from_config["model"]["source"]) == ("headers", "config")
    for key in ("parameters", "weight_bytes"):
        assert from_headers["model"][key] == from_config["model"][key]
    assert from_headers["runs"] == from_config["runs"]


def test_experts_are_read_as_far_as_tokens_choose_them():
    config = json.loads(small_config("mixtral").to_json_string(use_diff=False))
    shape = model_shape(config)
    tensors = [
        (name, tensor.numel() * tensor.element_size())
        for name, tensor in build(small_config("mixtral")).state_dict().items()
    ]
    stored, derived = weights_of_tensors(shape, tensors), weights_of_config(shape)
    assert stored.layers == derived.layers
    few, many = (
        estimate(shape, stored, [], Settings(batches=(n,), contexts=(8,)))["runs"][0]["decode"]
        for n in (1, 64)
    )
    assert few["bytes_weights"] < many["bytes_weights"] <= stored.total


@pytest.mark.slow
def test_a_quantized_stream_is_priced_by_its_bytes(run, tmp_path):
    packed = run("quantize", "default:", "--bits", 3)
    (tmp_path / "q.safetensors").write_bytes(packed.stdout)
    piped = json.loads(run("cost", data=packed.stdout).stdout)
    with open_path(tmp_path / "q.safetensors") as source:
        stored = sum(source.entries[name].nbytes for name in source.names())
    assert piped["model"]["weight_bytes"] == stored
    assert piped["model"]["parameters"] == 1_271_200
    assert not [line for line in piped["assumptions"] if "headers hold" in line]


@pytest.mark.slow
def test_a_stack_is_priced_by_the_prefix_that_is_read(run, tmp_path):
    stack = tmp_path / "m.stack"
    assert run("stack-compress", "default:", "--codec", "bitstack", "-o", stack).returncode == 0
    sizes = [json.loads(run("cost", stack, "--budget", size).stdout)["model"]["weight_bytes"]
             for size in (1_400_000, 1_000_000)]  # fmt: skip
    assert 0.9e6 > sizes[1] > 0.5e6 or sizes[0] > sizes[1]
    assert sizes[0] - sizes[1] == pytest.approx(400_000, rel=0.1)


def test_nothing_heavy_is_imported_to_price_a_config(files):
    program = (
        "import sys\nfrom bntools import cli\n"
        "assert cli.run(['cost', 'config.json', '--device', 'h100']) == 0\n"
        "heavy = {'torch', 'numpy', 'scipy', 'transformers', 'safetensors'} & set(sys.modules)\nassert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL, cwd=files)


def test_every_built_in_device_names_its_source():
    names = device_names()
    assert {"a100-80", "h100", "h200", "b200", "l4", "rtx4090", "m1-max", "raspberry-pi-5"} <= set(names)
    for name in names:
        device = open_device(name)
        assert device.source
        assert re.fullmatch(r"\d{4}-\d{2}", device.date)
    assert open_device("h100").ridge("bf16") == pytest.approx(295.3, abs=0.1)


def test_a_device_of_the_users_own_is_found_by_name(call, files, monkeypatch):
    folder = files / "etc" / "bntools" / "devices"
    folder.mkdir(parents=True)
    (folder / "mine.json").write_text(json.dumps({**SLOW, "name": "mine"}))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(files / "etc"))
    assert "mine" in json.loads(call("config.json", "--device", "h100,mine")[1])["devices"]
    assert "mine" in call("--list-devices")[1]


@pytest.mark.slow
def test_a_measured_machine_is_a_device(call, files):
    status, out, err = call("--measure", "here.json", "--threads", 1)
    assert status == 0, err
    report = json.loads(call("config.json", "--device", "here.json")[1])
    assert json.loads(out)["bandwidth"] == next(iter(report["devices"].values()))["bandwidth"]
    assert call("--measure", "here.json")[0] == 2
    assert not [path for path in files.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (("config.json", "--device", "tpu"), 2, "no device tpu"),
        (("config.json", "--batch", "0"), 2, "sizes are positive"),
        (("config.json", "--batch", "x"), 2, "no list of numbers"),
        (("config.json", "--context", "-4"), 2, "sizes are positive"),
        (("config.json", "--prompt", "4"), 2, "one request"),
        (("config.json", "--as", "gpt9"), 2, "--as gpt9"),
        (("config.json", "--budget", "60MB"), 2, "budget is for stacks"),
        (("gone/",), 2, "cannot open gone/"),
        (("report.json",), 3, "is a report (kind 'eval')"),
        (("new.json",), 3, "unknown architecture new"),
        (("bare.json",), 3, "lacks hidden_size"),
        (("config.json", "--device", "nowhere.json"), 3, "nowhere.json lacks bandwidth"),
        (("config.json", "--device", "still.json"), 3, "bandwidth is 0"),
        (("config.json", "--device", "odd.json"), 3, "peak.int3"),
        (("config.json", "--device", "empty.json"), 3, "lacks peak"),
        ((), 2, "no INPUT"),
    ],
)
def test_mistakes_are_named_with_a_way_out(call, files, monkeypatch, words, code, what):
    monkeypatch.setattr("bntools.options.stdin_connected", lambda: False)
    for name, content in (
        ("report.json", {"kind": "eval"}), ("new.json", {**LLAMA, "model_type": "new"}),
        ("bare.json", {"model_type": "llama"}), ("nowhere.json", {"peak": {"fp32": 1}}),
        ("still.json", {"peak": {"fp32": 1}, "bandwidth": 0}), ("odd.json", {"peak": {"int3": 1}, "bandwidth": 1}),
        ("empty.json", {"bandwidth": 1}),
    ):  # fmt: skip
        Path(name).write_text(json.dumps(content))
    status, out, err = call(*words)
    assert (status, out) == (code, "")
    assert what in err
    assert "hint:" in err
    assert "Traceback" not in err
