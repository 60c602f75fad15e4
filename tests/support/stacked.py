"""What tests of stacks share: the command in this process, and weights to compare."""

from __future__ import annotations

import json

import torch
from click.testing import CliRunner

from bntools.cli import bntools
from bntools.core.errors import BnError
from bntools.core.model.open import open_model


def call(*words, code: int = 0):
    """Run in this process; returns what was printed as JSON, or the error."""
    result = CliRunner().invoke(
        bntools, [*map(str, words)], standalone_mode=False, env={"SOURCE_DATE_EPOCH": "0"}
    )
    if code:
        assert isinstance(result.exception, BnError), result.exception
        assert result.exception.code == code, result.exception.what
        return result.exception
    assert result.exception is None, result.exception
    return json.loads(result.stdout)


def weights(path, budget=None):
    model = open_model(str(path), budget)
    return {name: model.tensor(name) for name in model.entries}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def logits(network, ids):
    with torch.no_grad():
        return network(ids).logits.float()


def close(a, b, dtype=torch.float32):
    """Whether logits differ by no more than sums in another order do."""
    allowed = 1e-4 if dtype == torch.float32 else 0.05
    return float((a - b).abs().max()) <= allowed * float(b.abs().max())


def write_tokenizer(home):
    """One token a byte below 96."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {chr(32 + index): index for index in range(95)} | {"?!": 95}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.save(str(home / "tokenizer.json"))
