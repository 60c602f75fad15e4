"""The command line as every tool keeps it: light help, exit codes, pipes, manifests."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time

import click
import pytest
import torch
from conftest import make_model
from safetensors.torch import load_file

from bntools.registry import COMMANDS, SECTIONS

HEAVY = (
    "torch",
    "numpy",
    "scipy",
    "transformers",
    "tokenizers",
    "safetensors",
    "rich",
    "triton",
    "matplotlib",
)


def imported(*words, **environment):
    command = [sys.executable, "-X", "importtime", "-m", "bntools", *words]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )
    return done, {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}


@pytest.mark.parametrize(
    "words", [("--help",), ("--version",), ("quantize", "--help"), ("eval", "--bitz"), ("quantise",)]
)
def test_help_and_mistakes_cost_no_heavy_import(words):
    done, modules = imported(*words)
    assert done.returncode in (0, 2)
    assert not modules & set(HEAVY)


def test_a_tab_costs_no_heavy_import():
    done, modules = imported(
        _BNTOOLS_COMPLETE="bash_complete", COMP_WORDS="bntools quantize --di", COMP_CWORD="2"
    )
    assert not modules & set(HEAVY)
    assert "--dim" in done.stdout


def test_twenty_more_tools_cost_help_no_import():
    """Twice the tools, the same modules: what help costs does not grow with them."""
    stand_ins = (
        "import sys\nfrom bntools import cli, registry\n"
        "more = {f'stand-in-{i}': 'A tool that is not there yet.' for i in range(int(sys.argv[1]))}\n"
        "registry.SECTIONS['More'] = more\nregistry.COMMANDS.summaries.update(more)\n"
        "code = cli.run(['--help'])\nprint(*sorted(sys.modules), sep='\\n', file=sys.stderr)\nsys.exit(code)\n"
    )
    few, many = (
        subprocess.run([sys.executable, "-c", stand_ins, count], capture_output=True, text=True, check=True)
        for count in ("1", "20")
    )
    assert few.stderr == many.stderr
    assert "  stand-in-19 " in many.stdout
    assert "bntools.tools" not in many.stderr


@pytest.mark.slow
def test_help_costs_little_more_than_click_itself():
    def cpu(*command):
        best = float("inf")
        for _ in range(7):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(command, capture_output=True, check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            best = min(best, spent)
        return best

    # Measured 1.3; the room is for a noisy machine, an import of numpy alone would be twice the bound.
    assert cpu(sys.executable, "-m", "bntools", "--help") <= 1.8 * cpu(sys.executable, "-c", "import click")


def test_every_command_is_listed_once_and_has_help(run):
    listed = [name for names in SECTIONS.values() for name in names]
    assert sorted(listed) == sorted(set(listed)) == sorted(COMMANDS)
    text = run("--help").stdout.decode()
    for name, command in COMMANDS.items():
        assert f"\n  {name} " in text
        assert command.help
        assert command.name == name
        assert command.short_help == COMMANDS.summaries[name], f"registry.py says another line of {name}"
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.name} has no help"


def test_a_near_miss_is_answered_with_what_was_meant(run):
    done = run("quantise")
    assert (done.returncode, done.stdout) == (2, b"")
    assert "Did you mean 'quantize'" in done.stderr
    done = run("quantize", "--bitz", "3")
    assert done.returncode == 2
    assert "--bits" in done.stderr


def test_the_version_is_one_line(run):
    from bntools import __version__

    assert run("--version").stdout.decode() == f"bntools {__version__}\n"


@pytest.fixture(scope="module")
def stream(run):
    """What `bntools quantize --bits 3` writes to a pipe."""
    done = run("quantize", "--bits", 3, "--dim", "ada")
    assert done.returncode == 0, done.stderr
    assert "no model named" in done.stderr
    return done.stdout


def test_the_stream_is_all_that_is_needed(run, stream, tmp_path):
    """Config and tokenizer travel in it: what ssh brings can be scored elsewhere."""
    done = run("eval", "--tokens", 600, data=stream, XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    for key in ("perplexity", "kl", "top1", "bits_per_weight", "bytes", "tokens", "protocol", "ppl_ratio"):
        assert key in report
    assert report["kind"] == "eval"
    assert report["bytes"] == len(stream)
    assert 0 < report["kl"]["mean"] < 1
    assert report["perplexity"] < 100


def test_info_reads_the_stream_and_its_history(run, stream):
    report = json.loads(run("info", "--modules", "--tensors", data=stream).stdout)
    assert report["kind"] == "model"
    assert [stage["tool"] for stage in report["history"]] == ["quantize"]
    assert report["history"][0]["argv"][1:] == ["quantize", "--bits", "3", "--dim", "ada"]
    assert set(report["dims"]) <= {"oc", "ic"}
    assert all(
        {"dim", "errors", "bits_per_weight", "criterion"} <= set(module) for module in report["modules"]
    )
    assert report["report"]["skipped"] == {
        "model.embed_tokens.weight": "not a linear weight (embedding, head, router)"
    }


@pytest.mark.slow
def test_the_same_command_gives_the_same_bytes_on_any_number_of_threads(run, stream):
    again = [
        run("quantize", "--bits", 3, "--dim", "ada", "--threads", n, SOURCE_DATE_EPOCH="0").stdout
        for n in (1, 2)
    ]
    tensors = [data[8 + int.from_bytes(data[:8], "little") :] for data in (stream, *again)]
    assert tensors[0] == tensors[1] == tensors[2]
    assert again[0].replace(b'\\"--threads\\",\\"1\\"', b"") == again[1].replace(
        b'\\"--threads\\",\\"2\\"', b""
    )


@pytest.mark.slow
def test_a_directory_goes_down_the_pipe_as_a_manifest(run, tmp_path):
    done = run("quantize", "--bits", 4, "-o", f"{tmp_path}/q/")
    manifest = json.loads(done.stdout)
    assert manifest["path"] == str(tmp_path / "q")
    assert sorted(os.listdir(tmp_path / "q"))[:2] == ["config.json", "generation_config.json"]
    dense = run("export", "-o", f"{tmp_path}/dense/", data=done.stdout)
    assert dense.returncode == 0, dense.stderr
    import transformers

    loaded, info = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "dense", output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert loaded(torch.tensor([[0, 5, 9]])).logits.isfinite().all()
    assert "quantization_config" not in json.loads((tmp_path / "dense" / "config.json").read_text())


@pytest.mark.slow
def test_exporting_an_unquantized_model_changes_no_weight(run, tmp_path):
    make_model("llama", tmp_path / "m", dtype="bfloat16")
    assert run("export", tmp_path / "m", "-o", f"{tmp_path}/out/").returncode == 0
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("m", "out"))
    assert set(before) == set(after)
    assert all(
        torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before
    )


@pytest.mark.slow
def test_a_dry_run_tells_the_size_and_writes_nothing(run, stream, tmp_path):
    done = run("quantize", "--bits", 3, "--dry-run", "-o", tmp_path / "x")
    report = json.loads(done.stdout)
    assert report["kind"] == "plan"
    assert report["writes_bytes"] == pytest.approx(len(stream), rel=0.1)
    assert os.listdir(tmp_path) == []


def test_no_model_and_no_input_is_a_usage_error_for_eval(run):
    done = run("eval")
    assert done.returncode == 2
    assert done.stderr.startswith("bntools eval: error: no INPUT")


@pytest.mark.slow
def test_gates_have_their_own_exit_code(run, stream, tmp_path):
    done = run("eval", "--tokens", 300, "--max-ppl", 1, data=stream, XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 4
    assert json.loads(done.stdout)["perplexity"] > 1, "the report is there although the gate was not met"
    assert "--max-ppl 1" in done.stderr


@pytest.mark.slow
def test_a_pipe_of_three_stages_works(tmp_path):
    line = f"{sys.executable} -m bntools"
    command = f"set -o pipefail; {line} quantize --per-ic --bits 3 -q | {line} export | {line} info"
    began = time.monotonic()
    done = subprocess.run(["bash", "-c", command], capture_output=True, stdin=subprocess.DEVNULL, check=True)
    assert time.monotonic() - began < 120
    report = json.loads(done.stdout)
    assert [stage["tool"] for stage in report["history"]] == ["quantize", "export"]
    assert report["bits_per_weight"] == {"model": 16.0}


def test_a_name_without_an_ending_is_a_folder_where_programs_load_folders(tmp_path, capfd):
    from bntools import cli

    assert cli.run(["export", "default:", "-o", str(tmp_path / "dense")]) == 0
    assert (tmp_path / "dense" / "config.json").is_file()
    assert cli.run(["export", "default:", "-o", str(tmp_path / "dense.safetensors")]) == 0
    assert (tmp_path / "dense.safetensors").is_file()
    capfd.readouterr()
