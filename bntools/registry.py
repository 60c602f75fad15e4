"""The tools, in the order help lists them. A command's module is imported when it is asked for, no sooner.

A tool is one line here; its command is the object `command` of bntools/tools/<name>/command.py, with the same line as
its short help (a test compares them).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click

SECTIONS: dict[str, dict[str, str]] = {
    "Compress": {
        "quantize": "Quantize the linear weights of a model to 2 to 8 bits.",
        "stack-compress": "One file, any size: every prefix of it is a model.",
        "embed-fit": "Fit embedding tables as small as they can be.",
        "embed-compress": "Compress an embedding table without training data.",
        "kv-compress": "Plan a key-value cache of few bits, or store a prompt.",
        "vec-index": "Index vectors in few bytes for queries to come.",
    },
    "Build": {
        "cbm-build": "Build a concept bottleneck from embeddings.",
        "cbm-explain": "Say which concepts decide, and what would change it.",
        "cbm-edit": "Edit a concept bottleneck without training.",
        "ard-fit": "Count the latent dimensions that data need.",
        "sparse-code": "Train a sparse dictionary, or name its latents.",
        "sparse-encode": "Encode activations by a sparse dictionary.",
        "sparse-decode": "Decode sparse codes, edited if asked to.",
        "splat": "Render coded elements, and answer queries in code space.",
    },
    "Sample": {
        "sample-bottleneck": "Sample at high, low and high resolution, exactly.",
    },
    "Score": {
        "eval": "Measure how good a model still is.",
        "bleu-gpu": "BLEU of token ids, per sentence or corpus.",
    },
    "Measure": {
        "intrinsic-dim": "How many dimensions a learning problem has.",
        "data-dim": "Measure the intrinsic dimension of a point cloud.",
        "scale-fit": "Fit a scaling law to training runs.",
        "data-mix": "Predict what a mixture of data gives, and choose it.",
        "screen": "Find the columns that say something about one.",
        "sparse-fit": "Fit a sparse regression by SCAD, MCP or lasso.",
        "mixed-fit": "Fit a mixed model with Gaussian or heavy tails.",
        "record": "Keep every layer's activations while a network trains.",
        "ib-analyze": "Information planes, with what speaks against them.",
        "mi": "Mutual information, and how far to trust it.",
    },
    "Cost": {
        "cost": "Price a model before it runs: FLOPs, bytes, ceilings.",
        "cost-attention": "Count the memory traffic of attention, with bounds.",
        "cost-tts": "Choose model and trials for a budget at test time.",
        "cost-fpga": "Estimate what a network takes of an FPGA.",
    },
    "Inspect and convert": {
        "info": "Show what an artifact or model holds.",
        "export": "Write a model in a format other programs load.",
    },
    "Get models and data": {
        "fetch": "Get a model or data set by name, checked and cached.",
        "embed": "Keep what a model makes of texts or images.",
    },
}


class Commands(Mapping[str, "click.Command"]):
    """Commands by name: the names cost nothing, a command the import of its module."""

    def __init__(self, sections: Mapping[str, Mapping[str, str]]) -> None:
        self.summaries = {name: line for tools in sections.values() for name, line in tools.items()}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self.summaries:
            raise KeyError(name)
        return importlib.import_module(f"bntools.tools.{name.replace('-', '_')}.command").command

    def __contains__(self, name: object) -> bool:
        return name in self.summaries

    def __iter__(self) -> Iterator[str]:
        return iter(self.summaries)

    def __len__(self) -> int:
        return len(self.summaries)


COMMANDS = Commands(SECTIONS)
