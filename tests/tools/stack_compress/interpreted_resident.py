"""Run by test_resident.py in its own process: triton reads TRITON_INTERPRET when it is imported."""

from __future__ import annotations

import os

import pytest
import torch
from support.stacked import close, logits

from bntools.core.artifact.reader import open_path
from bntools.core.resident import layers
from bntools.core.resident.gpu_weight import DeviceWeight
from bntools.core.resident.resize import Resident
from bntools.kernels.stack import weight_gpu as stack_weight_gpu

assert os.environ.get("TRITON_INTERPRET") == "1", "run through test_resident.py"

STACK = os.environ["BNTOOLS_TEST_STACK"]


@pytest.fixture(autouse=True)
def few_programs(monkeypatch):
    """The interpreter takes its time for a program, whatever its size."""
    monkeypatch.setattr(stack_weight_gpu, "ROWS", {"ROWS": 256, "EIGHTS": 32})
    monkeypatch.setattr(stack_weight_gpu, "LISTED", {"ROWS": 256, "SIZE": 32})
    monkeypatch.setattr(stack_weight_gpu, "PRODUCT", {"ROWS": 256, "EIGHTS": 64})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_in_a_gpu_s_memory_is_the_one_of_the_cpu_at_every_budget(dtype, monkeypatch):
    """The class of the GPU with tensors of the CPU: all that is not shown here is the device."""
    with open_path(STACK) as source:
        base, whole = source.header.base_bytes, source.nbytes
    cpu = Resident(STACK, base + 70_000, dtype, packed=True)
    monkeypatch.setattr(layers, "hold", DeviceWeight)
    gpu, taken = Resident(STACK, base + 70_000, dtype, packed=True), {}
    assert all(isinstance(held, DeviceWeight) for held in gpu._held.values())
    assert not gpu._base  # no second copy in main memory
    for budget in (base + 70_000, whole, base + 200_001, base):
        assert gpu.resize(budget)[:2] == cpu.resize(budget)[:2]
        for ids in (torch.arange(5, 17)[None], torch.arange(5, 7)[None]):  # rows made for many, none for few
            assert close(logits(gpu.network, ids), logits(cpu.network, ids), dtype)
        for path, module in gpu.network.named_modules():
            if isinstance(module, layers.StackedLinear | layers.StackedEmbedding):
                assert torch.equal(module.weight, cpu.network.get_submodule(path).weight)
        taken[budget] = gpu.memory
    for more in taken:  # by two bytes for one in a trellis code
        assert more - base - 2000 < taken[more] - taken[base] < 2 * (more - base) + 2000


def test_an_embedding_gives_a_row_for_each_token_of_a_batch(monkeypatch):
    ids = torch.tensor([[7, 3, 7], [0, 3, 1]])
    wanted = Resident(STACK, packed=True).network.get_input_embeddings()
    monkeypatch.setattr(layers, "hold", DeviceWeight)
    found = Resident(STACK, packed=True).network.get_input_embeddings()
    assert torch.equal(found(ids), wanted(ids))
    assert found(ids[:, :0]).shape == wanted(ids[:, :0]).shape
