"""A network as a seed and d numbers: it comes back bit for bit, or not at all."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch
from torch import nn

from bntools.core.artifact.reader import open_path
from bntools.core.artifact.writer import Writer
from bntools.core.datasets import networks
from bntools.core.errors import BnError
from bntools.core.model import subspace
from bntools.kernels.projections import projections

SHAPE, CLASSES = (6, 5), 4
FACTS = {"spec": "fc:7,8", "shape": list(SHAPE), "classes": CLASSES, "mean": 1.5, "std": 2.0, "modules": None}


def start(seed: int = 3, spec: str = "fc:7,8") -> networks.FlatParameters:
    module = networks.named(spec, SHAPE, CLASSES)
    networks.initialize(module, seed)
    return networks.FlatParameters(module)


def write(path, *, said=False, codes="fp32", kind="uniform", change=None) -> torch.Tensor:
    """Write a subspace of 40 numbers and return the parameters it stands for."""
    flat = start()
    facts = subspace.Facts(
        kind, projections.VERSION, flat.size, 40, 3, said, subspace.digest(flat.theta), FACTS
    )
    z = np.random.default_rng(1).normal(size=40).astype(np.float32)
    tensors = subspace.encode(z, codes)
    with Writer(str(path), subspace.KIND, force=True) as out:
        subspace.write(out, facts, tensors, {})
        out.describe("subspace", json.loads(out.metadata["bntools.subspace"]) | (change or {}))
    theta = flat.theta.numpy()
    subspace.make(facts, flat.layers()).apply(subspace.decode(tensors), theta, theta)
    return flat.theta


@pytest.mark.parametrize("kind", list(projections.PROJECTIONS))
@pytest.mark.parametrize("codes", subspace.CODES)
def test_a_network_comes_back_bit_for_bit(tmp_path, kind, codes):
    wanted = write(tmp_path / "s", codes=codes, kind=kind)
    found = networks.FlatParameters(subspace.open_network(open_path(tmp_path / "s")))
    assert torch.equal(found.theta, wanted)
    assert not torch.equal(found.theta, start().theta)


def test_scales_of_layers_come_back_too(tmp_path):
    wanted = write(tmp_path / "s", said=True)
    assert torch.equal(
        networks.FlatParameters(subspace.open_network(open_path(tmp_path / "s"))).theta, wanted
    )


def test_starting_weights_are_the_bits_they_were_when_this_was_written():
    digest = hashlib.sha256(start().theta.numpy().tobytes()).hexdigest()[:16]
    lenet = networks.named("lenet", (28, 28), 10)
    networks.initialize(lenet, 5)
    flat = networks.FlatParameters(lenet)
    assert (digest, subspace.digest(flat.theta)[:16]) == ("e3124390270b5f49", "0e71ab1e5ee13f02")
    assert flat.size == 44_426
    assert networks.FlatParameters(networks.named("fc:200,200", (28, 28), 10)).size == 199_210


def test_int8_loses_half_a_step_at_most():
    z = np.random.default_rng(0).normal(size=500).astype(np.float32)
    assert np.abs(subspace.decode(subspace.encode(z, "int8")) - z).max() <= 0.5001 * np.abs(z).max() / 127
    assert not subspace.decode(subspace.encode(np.zeros(3, np.float32), "int8")).any()


@pytest.mark.parametrize(
    "change",
    [
        {"version": 99}, {"projection": "magic"}, {"size": 10}, {"dim": 41}, {"theta0": "0" * 64}, {"seed": 4},
        {"network": {**FACTS, "shape": [6, "x"]}}, {"network": {**FACTS, "classes": 5}}, {"more": 1}, {"seed": -1},
        {"network": "fc:7"},
    ],
)  # fmt: skip
def test_facts_that_lie_are_refused(tmp_path, change):
    write(tmp_path / "s", change=change)
    with pytest.raises(BnError) as caught:
        subspace.open_network(open_path(tmp_path / "s"))
    assert caught.value.code == 3


def test_an_artifact_never_says_which_code_to_run(tmp_path):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\ndef build(): pass\n")
    write(tmp_path / "s", change={"network": {**FACTS, "spec": f"{tmp_path}/evil.py:build"}})
    with pytest.raises(BnError) as caught:
        subspace.open_network(open_path(tmp_path / "s"))
    assert caught.value.code == 2
    assert not (tmp_path / "ran").exists()


def test_writing_to_the_flat_vector_changes_what_the_module_computes():
    flat = start()
    x = torch.randn(3, *SHAPE)
    before = flat.module(x)
    flat.theta.mul_(2)
    assert not torch.allclose(flat.module(x), before)
    state = torch.cat([p.reshape(-1) for p in flat.module.parameters()])
    assert torch.equal(state, flat.theta)


def test_a_layer_is_what_one_module_owns():
    flat = start()
    assert flat.layers() == [(0, 30 * 7 + 7), (217, 217 + 7 * 8 + 8), (281, 281 + 8 * 4 + 4)]
    chosen = networks.FlatParameters(flat.module, r"\.bias$")
    assert chosen.size == 7 + 8 + 4
    assert len(chosen.layers()) == 3
    assert [p.requires_grad for p in flat.module.parameters()] == [False, True] * 3
    with pytest.raises(BnError, match="no parameter"):
        networks.FlatParameters(flat.module, "q_proj")


def test_a_shared_parameter_is_counted_once():
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    module[1].weight = module[0].weight
    flat = networks.FlatParameters(module)
    assert flat.size == 16 + 4 + 4
    flat.theta.zero_()
    assert not module[1].weight.any()


@pytest.mark.parametrize("spec", ["fc:", "fc:0", "fc:a", "fc:3,", "resnet", "nothing.py:build"])
def test_a_network_nothing_answers_to_is_a_usage_error(spec):
    with pytest.raises(BnError) as caught:
        (networks.named if ".py" not in spec else lambda s, *_: networks.from_file(s))(spec, SHAPE, CLASSES)
    assert caught.value.code == 2
