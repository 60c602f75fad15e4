"""A stack in memory, dense or packed: after every step it is the model of the budget."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import make_model
from support.stacked import call, close, equal, logits, write_tokenizer
from support.without_gpu import interpret

from bntools.core.architecture import linears
from bntools.core.artifact.reader import open_path
from bntools.core.errors import MISSING, USAGE, BnError
from bntools.core.model.open import open_model
from bntools.core.resident import layers
from bntools.core.resident.resize import Resident

FAST = ("--calib-tokens", 2048, "-q", "--curve", 0)
IDS = torch.arange(5, 17)[None]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("resident") / "s.safetensors"
    call("stack-compress", "default:", *FAST, "-o", path)
    return path


@pytest.fixture(scope="module")
def base(made):
    with open_path(made) as source:
        return source.header.base_bytes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_in_memory_grows_and_shrinks_to_what_a_fresh_one_is(made, base, dtype):
    whole = made.stat().st_size
    held = Resident(made, base + 70_000, dtype)
    for budget in (base + 200_001, whole, base + 70_000, base):
        change = held.resize(budget)
        assert change.nbytes == held.nbytes == budget
        assert change.rows > 0
        fresh = open_model(str(made), budget).build(dtype).state_dict()
        assert equal(dict(held.network.state_dict()), dict(fresh))
    assert held.resize(base).rows == 0
    with pytest.raises(BnError, match="smallest prefix"):
        held.resize(base - 1)
    assert equal(dict(held.network.state_dict()), dict(fresh))


@pytest.mark.parametrize(
    "maker",
    ["open_model(path, budget).build(torch.bfloat16)", "Resident(path, budget, torch.bfloat16).network"],
)
def test_weights_made_beside_the_import_of_transformers_are_those_made_one_by_one(maker, made, base):
    program = (
        "import sys, hashlib, torch\nfrom bntools.core.resident.resize import Resident\n"
        "from bntools.core.model.open import open_model\npath, budget = sys.argv[1], int(sys.argv[2])\n"
        f"assert 'transformers' not in sys.modules\nstate = ({maker}).state_dict()\n"
        "for name, weight in state.items():\n"
        "    print(name, hashlib.sha256(weight.view(torch.uint8).numpy()).hexdigest())"
    )
    budget = base + 70_000
    done = subprocess.run(
        [sys.executable, "-c", program, str(made), str(budget)], check=True, capture_output=True, text=True
    )
    model = open_model(str(made), budget)
    rename = linears.renamer(linears.skeleton(model.config))
    wanted = {rename(name): model.tensor(name, torch.bfloat16) for name in model.entries}
    found = dict(line.split() for line in done.stdout.splitlines())
    assert set(wanted) <= set(found)
    for name, weight in wanted.items():
        assert found[name] == hashlib.sha256(weight.contiguous().view(torch.uint8).numpy()).hexdigest()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_packed_model_is_the_dense_one_in_less_memory_at_every_budget(made, base, dtype):
    whole = made.stat().st_size
    packed, dense = (Resident(made, whole, dtype, packed=is_packed) for is_packed in (True, False))
    taken = {}
    for budget in (whole, base + 70_000, base + 200_001, base):
        steps = packed.resize(budget), dense.resize(budget)
        assert steps[0][:2] == steps[1][:2]
        for ids in (IDS, IDS[:, :2]):  # rows made for many vectors, none made for few
            assert close(logits(packed.network, ids), logits(dense.network, ids), dtype)
        for path, module in packed.network.named_modules():
            if isinstance(module, layers.StackedLinear | layers.StackedEmbedding):
                assert torch.equal(module.weight.to(dtype), dense.network.get_submodule(path).weight)
        taken[budget] = packed.memory
        assert packed.memory < 0.7 * dense.memory
    for (
        more
    ) in taken:  # memory follows the file, by two bytes for one in a trellis code, but for rows that are cut
        assert more - base - 2000 < taken[more] - taken[base] < 2 * (more - base) + 2000
    assert taken[whole] - taken[base] == pytest.approx(1.5 * (whole - base), rel=0.02)
    assert next(packed.network.parameters()).dtype == dtype


def test_a_packed_model_generates_what_the_dense_one_does(made):
    found = [
        Resident(made, packed=packed).network.generate(IDS, max_new_tokens=8, do_sample=False)
        for packed in (True, False)
    ]
    assert torch.equal(*found)


@pytest.mark.parametrize(("kind", "dense"), [("gpt2", 0), ("llama", 0), ("gemma", 1)])
def test_other_architectures_stay_packed_where_their_modules_are_plain(kind, dense, tmp_path):
    """Weights stored transposed, biases, a head of its own; gemma's embedding scales its rows, so it is dense."""
    home, path = tmp_path / kind, tmp_path / f"{kind}.safetensors"
    make_model(kind, home)
    write_tokenizer(home)
    (tmp_path / "text.txt").write_text("no tokenizer here")
    call("stack-compress", home, *FAST, "--planes", 2, "-o", path)
    with open_path(path) as source:
        base = source.header.base_bytes
    packed, plain = (Resident(path, packed=is_packed) for is_packed in (True, False))
    assert len(packed._names) - len(packed._held) == dense
    for budget in (path.stat().st_size, base):
        packed.resize(budget)
        plain.resize(budget)
        for ids in (IDS, IDS[:, :3]):
            assert close(logits(packed.network, ids), logits(plain.network, ids))


@pytest.mark.slow
def test_a_packed_model_on_a_gpu_is_the_one_of_the_cpu(made):
    pytest.importorskip("triton", reason="the extra `gpu` is not installed")
    interpret(Path(__file__).with_name("interpreted_resident.py"), 600, BNTOOLS_TEST_STACK=str(made))


def test_a_dense_model_is_moved_to_a_device_and_changed_there(made, base):
    """On a device without memory: where its tensors are, and that none of another device is put among them."""
    held = Resident(made, base, device="meta")
    assert held.resize(made.stat().st_size).rows > 0
    assert {tensor.device.type for tensor in held.network.state_dict().values()} == {"meta"}


def test_devices_on_which_a_network_cannot_be_are_refused(made, monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device, packed, code in (("meta", True, USAGE), ("cuda", True, MISSING), ("cuda", False, USAGE)):
        with pytest.raises(BnError) as refused:
            Resident(made, packed=packed, device=device)
        assert refused.value.code == code
