"""Every number that the pages of cost, cost-attention, cost-tts and cost-fpga quote, beside its baseline.

    python tests/benchmarks/cost.py [counter|time|ceiling|attention|threshold|fpga ...] [--model DIR]

`ceiling` decodes with a real model: bntools fetch smollm2 -o DIR.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def counter() -> None:
    """FLOPs and parameters of every architecture: ours, torch's counter forced to plain products, and as it comes."""
    import torch
    from support.tiny_configs import build, small_config
    from torch.utils.flop_counter import FlopCounterMode

    from bntools.core.architecture.shapes import counts
    from bntools.core.architecture.shapes.families import FAMILIES
    from bntools.core.architecture.shapes.layers import model_shape

    def counted(model: Any) -> int:
        with torch.no_grad(), FlopCounterMode(display=False) as flops:
            model(torch.randint(2, 100, (2, 32)), use_cache=False)
        return flops.get_total_flops()

    exact = 0
    print(f"{'family':18} {'ours':>12} {'forced':>12} {'as it comes':>12} {'parameters':>10}")
    for kind in FAMILIES:
        config = small_config(kind)
        shape = model_shape(json.loads(config.to_json_string(use_diff=False)))
        ours = counts.prefill_flops(shape, 2, 32, dense=True)
        model = build(config)
        forced, parameters = counted(model), sum(p.numel() for p in model.parameters())
        try:
            config = small_config(kind)
            import transformers

            usual = counted(transformers.AutoModelForCausalLM.from_config(config).eval()) / ours - 1
        except Exception:
            usual = float("nan")
        same = ours == forced and counts.parameters(shape) == parameters
        exact += same
        print(
            f"{kind:18} {ours:12,} {forced:12,} {usual:+12.1%} {parameters:10,} {'' if same else 'DIFFERS'}"
        )
    print(f"{exact} of {len(FAMILIES)} exact")


def seconds_of(words: list[str]) -> float:
    """CPU seconds of a program, the least of three."""
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(spent)


def answer(model: str) -> None:
    """CPU seconds to price a config, against building the model on meta tensors and counting."""
    config = str(Path(model) / "config.json")
    build = (
        "import sys, json, torch, transformers\n"
        "from torch.utils.flop_counter import FlopCounterMode\n"
        "c = transformers.AutoConfig.from_pretrained(sys.argv[1])\n"
        "with torch.device('meta'):\n"
        "    m = transformers.AutoModelForCausalLM.from_config(c, attn_implementation='eager')\n"
        "with torch.no_grad(), FlopCounterMode(display=False) as f:\n"
        "    m(torch.zeros(1, 2048, dtype=torch.long, device='meta'), use_cache=False,\n"
        "      attention_mask=torch.zeros(1, 1, 2048, 2048, device='meta'))\n"
        "print(f.get_total_flops())\n"
    )
    ours = seconds_of([sys.executable, "-m", "bntools", "cost", config, "--device", "h100"])
    theirs = seconds_of([sys.executable, "-c", build, model])
    empty = seconds_of([sys.executable, "-c", "pass"])
    print(
        f"cost {ours:.3f} s, build and count {theirs:.3f} s: {theirs / ours:.0f} times; python alone {empty:.3f} s"
    )


def ceiling(model: str) -> None:
    """Tokens a second that are reached, plain and packed, against the ceiling of this machine as measured."""
    import torch
    import transformers

    import bntools  # noqa: F401 - transformers then reads packed directories

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        device = str(Path(folder) / "here.json")
        tool = [sys.executable, "-m", "bntools"]
        subprocess.run(
            [*tool, "cost", "--measure", device, "--threads", "1", "-q"], check=True, stdout=subprocess.PIPE
        )
        subprocess.run([*tool, "quantize", model, "--bits", "4", "-o", f"{folder}/q4/"], check=True,
                       stdout=subprocess.PIPE)  # fmt: skip
        print(Path(device).read_text())
        packed = f"{folder}/q4"
        forms = [
            ("bfloat16", model, "bfloat16"),
            ("float32", model, "float32"),
            ("4 bits", packed, "float32"),
        ]
        for label, source, dtype in forms:
            bits, kind = ("16", "bf16") if dtype == "bfloat16" else ("32", "fp32")
            words = [
                *tool,
                "cost",
                source,
                "--device",
                device,
                "--context",
                "72",
                "--kv-bits",
                bits,
                "--dtype",
                kind,
            ]
            if dtype == "float32" and source == model:
                config = json.loads((Path(model) / "config.json").read_text())
                wide = Path(folder) / "config.json"
                wide.write_text(json.dumps({**config, "dtype": "float32", "torch_dtype": "float32"}))
                words[4] = str(wide)
            report = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout)
            rate = next(iter(report["runs"][0]["decode"]["tokens_per_s"].values()))
            network = transformers.AutoModelForCausalLM.from_pretrained(
                source, dtype=getattr(torch, dtype)
            ).eval()
            reached = decoded(network)
            print(f"{label:9} ceiling {rate['value']:7.1f} tokens/s ({rate['bound']}), reached {reached:7.1f}, "
                  f"ratio {rate['value'] / reached:.2f}")  # fmt: skip


def decoded(network: Any) -> float:
    """Tokens a second, the best of three stretches of 16 steps behind 64 tokens."""
    import torch

    with torch.no_grad():
        ids = torch.arange(64)[None] + 10
        out = network(ids, use_cache=True)
        cache, token, best = out.past_key_values, out.logits[:, -1:].argmax(-1), 0.0
        for _ in range(3):
            began = time.perf_counter()
            for _ in range(5):
                out = network(token, past_key_values=cache, use_cache=True)
                token = out.logits[:, -1:].argmax(-1)
            best = max(best, 5 / (time.perf_counter() - began))
    return best


def attention() -> None:
    """Formula, LRU and ideal cache of planned tilings; orders by memory."""
    from bntools.tools.cost_attention import Problem, backward_plans, forward_plans, simulate

    print(f"{'N':>4} {'d':>3} {'M':>5} {'order':15} {'formula':>8} {'LRU':>8} {'ideal':>8}")
    for length, width, memory in ((64, 8, 512), (128, 8, 1024), (96, 16, 1500), (256, 16, 3000)):
        p = Problem(length, length, width, memory)
        for plan in (*forward_plans(p), *backward_plans(p)):
            lru, ideal = (simulate(p, plan, policy) for policy in ("lru", "ideal"))
            print(f"{length:4} {width:3} {memory:5} {plan.name:15} {plan.moved:8,} {lru:8,} {ideal:8,}")
    for width in (64, 128):
        for share in (1 / 8, 1 / 4, 0.4, 0.5, 0.6, 1, 4):
            p = Problem(4096, 4096, width, int(share * width**2))
            moved = {plan.name: f"{plan.moved / 1e6:.1f}M" for plan in forward_plans(p)}
            back = (
                {plan.name: f"{plan.moved / 1e6:.1f}M" for plan in backward_plans(p)} if share > 0.3 else {}
            )
            print(f"d {width} M/d^2 {share:.3f}", {**moved, **back})


def threshold() -> None:
    """How often the interval holds the threshold of a planted law, of 100."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools" / "cost_tts"))
    from test_threshold import recovered

    print(f"{recovered(range(100))} of 100 intervals hold the planted threshold")


def fpga() -> None:
    """Errors of every corrector on a synthetic table, beside counting and the median."""
    from bntools.tools.cost_fpga import fit, read_samples
    from bntools.tools.cost_fpga.network import Defaults
    from bntools.tools.cost_fpga.synthetic import rows

    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows(800, 0))
        file.flush()
        samples = read_samples(file.name, Defaults())
    for model in ("boosting", "graph", "transformer"):
        began = time.process_time()
        targets = fit(samples, model, 0, lambda count: None).report["targets"]
        print(f"{model}, {time.process_time() - began:.0f} CPU s")
        for name, t in targets.items():
            print(f"  {name:9} SMAPE {t['smape']:6.2f} counting {t['first_order_smape']:6.2f} median "
                  f"{t['median_smape']:6.1f}; in 90 %: {t['interval90_holds']:.2f}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "what", nargs="*", help="counter time ceiling attention threshold fpga; all by default"
    )
    parser.add_argument("--model", help="directory of SmolLM2 for time and ceiling")
    given = parser.parse_args()
    parts: dict[str, Callable[[], None]] = {
        "counter": counter, "attention": attention, "fpga": fpga, "threshold": threshold,
    }  # fmt: skip
    if given.model:
        parts |= {"time": lambda: answer(given.model), "ceiling": lambda: ceiling(given.model)}
    for name in given.what or parts:
        print(f"== {name}")
        parts[name]()


if __name__ == "__main__":
    main()
