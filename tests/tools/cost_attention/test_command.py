"""bntools cost-attention as a user meets it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bntools import cli

PAGE = Path(__file__).resolve().parents[3] / "man" / "man1" / "bntools-cost-attention.1"
SMALL = ("--seq", "64", "--head-dim", "8")


@pytest.fixture
def call(capsys):
    def run(*words):
        status = cli.run(["cost-attention", *map(str, words)])
        return status, *capsys.readouterr()

    return run


def test_a_simulation_stands_beside_the_formula(call):
    status, out, _ = call(*SMALL, "--sram", "512el", "--simulate", "lru,ideal,fifo")
    report = json.loads(out)
    assert (status, report["kind"], report["order"]) == (0, "cost-attention", "rows")
    assert report["simulated"]["lru"] == report["simulated"]["closed"] == report["cost"]["elements"] == 4160
    assert report["simulated"]["ideal"] < 4160 < report["simulated"]["fifo"]


def test_the_hardware_example_counts_bytes_flops_and_time(call):
    words = (
        "--seq",
        8192,
        "--head-dim",
        128,
        "--sram",
        "228KiB",
        "--heads",
        32,
        "--kv-heads",
        8,
        "--device",
        "h100",
    )
    report = json.loads(call(*words)[1])
    assert report["cost"]["bytes"] == 2 * report["cost"]["elements"]
    assert report["flops"] == 4 * 32 * 8192**2 * 128
    assert report["devices"]["h100"]["bound"] == "compute"
    causal = json.loads(call(*words, "--causal")[1])
    assert causal["flops"] == 4 * 32 * 128 * (8192 * 8193 // 2)
    assert causal["cost"]["elements"] < report["cost"]["elements"]
    back = json.loads(call(*words, "--backward", "--solve")[1])
    assert back["order"] == "backward-twice"
    assert len(back["tiles"]["passes"]) == 2


def test_the_device_states_the_fast_memory(call):
    report = json.loads(call(*SMALL, "--device", "a100-80", "--dtype", "fp32")[1])
    assert report["memory"]["elements"] == 192 * 1024 // 4


def test_the_page_documents_every_key(call):
    page = PAGE.read_text()
    known = {n for line in re.findall(r"^\.It Li (.+)$", page, re.MULTILINE) for n in re.split("[ ,]+", line)}
    report = json.loads(call(*SMALL, "--sram", "512el", "--simulate", "lru")[1])
    assert set(report) <= known


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (("--sram", "20"), 2, "no unit"),
        (("--sram", "4el"), 3, "hold no tile"),
        ((), 2, "no --sram"),
        (("--sram", "1KiB", "--simulate", "mru"), 2, "known are lru"),
        (("--sram", "1KiB", "--tile", "8"), 2, "no tile"),
        (("--sram", "512el", "--tile", "64x64"), 2, "fills"),
        (("--sram", "1KiB", "--heads", 3, "--kv-heads", 2), 2, "do not divide"),
        (("--sram", "1KiB", "--queries", 65), 2, "more than the 64 keys"),
        (("--sram", "1KiB", "--splits", 2, "--backward"), 2, "forward pass"),
        (("--sram", "1KiB", "--device", "h1000"), 2, "no device h1000"),
        (("--seq", "-1"), 2, "--seq"),
    ],
)
def test_mistakes_are_named(call, words, code, what):
    status, out, err = call(*SMALL, *words)
    assert (status, out) == (code, "")
    assert what in err
    assert "Traceback" not in err
