"""Linears and embeddings whose weights stay stacked: they hold what the file has of them, and multiply with that."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from bntools.core.packing import stack
from bntools.kernels.stack import weight as stack_weight

FEW = 8
"""Vectors that are multiplied one by one; for more, rows are made block by block."""


class Held(Protocol):
    """A stacked weight [out, in]: levels of its base, scales, and the bits of the planes that are there."""

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def nbytes(self) -> int: ...

    def change(self, planes: stack.Planes) -> None: ...

    def rows(self, which: Tensor) -> Tensor: ...

    def look_up(self, ids: Tensor, dtype: torch.dtype) -> Tensor: ...

    def times(self, x: Tensor) -> Tensor: ...


def hold(base: stack.Base, planes: stack.Planes, device: torch.device) -> Held:
    """A weight where, and in the form in which, a device multiplies with it."""
    if device.type == "cpu":
        return ResidentWeight(base, planes)
    from bntools.core.resident.gpu_weight import DeviceWeight

    return DeviceWeight(base, planes, device)


class ResidentWeight:
    """A stacked weight in main memory."""

    def __init__(self, base: stack.Base, planes: stack.Planes) -> None:
        self.base = base
        self.change(planes)

    def change(self, planes: stack.Planes) -> None:
        """Have these planes, and no others; the bits are copied."""
        self.planes = planes.compact()
        self.kernel = self.base.with_planes(self.planes)

    @property
    def shape(self) -> tuple[int, int]:
        return self.base.shape

    @property
    def nbytes(self) -> int:
        """Bytes in memory, all of them."""
        planes = (
            self.planes.bits,
            self.planes.first,
            self.planes.depth,
            self.kernel.first,
            self.kernel.depth,
        )
        return self.base.nbytes + sum(part.nbytes for part in planes)

    def rows(self, which: Tensor) -> Tensor:
        """Some rows [n, in] in float32."""
        return torch.from_numpy(stack_weight.rows(self.kernel, which.numpy()))

    def look_up(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """Rows [*ids, in] in `dtype`, each made once."""
        distinct, place = ids.unique(return_inverse=True)
        return self.rows(distinct).to(dtype)[place]

    def times(self, x: Tensor) -> Tensor:
        """y [n, out] = x W^T of x [n, in] float32; each row of W is made once for many x, never for few."""
        if len(x) <= FEW:
            y = [torch.from_numpy(stack_weight.product(self.kernel, row)) for row in x.contiguous().numpy()]
            return torch.stack(y) if y else x.new_empty(0, self.shape[0])
        y, size = x.new_empty(len(x), self.shape[0]), max(1, stack.CHUNK // self.shape[1])
        for start in range(0, self.shape[0], size):
            some = torch.arange(start, min(start + size, self.shape[0]))
            y[:, some[0] : some[-1] + 1] = x @ self.rows(some).T
        return y


class StackedLinear(nn.Module):
    """y = x W^T + b; forward only, no gradient reaches x or W."""

    def __init__(self, held: Held, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.held, self.bias = held, bias
        self.out_features, self.in_features = held.shape

    def forward(self, x: Tensor) -> Tensor:
        flat = x.detach().reshape(-1, self.in_features).float()
        y = self.held.times(flat).to(x.dtype).reshape(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias

    @property
    def weight(self) -> Tensor:
        """W [out, in] float32, made each time it is asked for."""
        return self.held.rows(torch.arange(self.out_features))


class StackedEmbedding(nn.Module):
    """Rows of W by number, in `dtype`."""

    def __init__(self, held: Held, dtype: torch.dtype) -> None:
        super().__init__()
        self.held, self.dtype = held, dtype
        self.num_embeddings, self.embedding_dim = held.shape

    def forward(self, ids: Tensor) -> Tensor:
        return self.held.look_up(ids, self.dtype)

    @property
    def weight(self) -> Tensor:
        """W [out, in] in `dtype`, made each time it is asked for."""
        return self.held.rows(torch.arange(self.num_embeddings)).to(self.dtype)


def users(network: nn.Module, parameter: str) -> list[str]:
    """Paths of all modules that have this parameter as their weight, where each is one that can be stacked; or none.

    A module of a class of its own may do more with its weight than a linear or an embedding does.
    """
    from transformers.pytorch_utils import Conv1D

    wanted = network.get_parameter(parameter)
    shared = [
        (path, module, name)
        for path, module in network.named_modules()
        for name, value in module.named_parameters(recurse=False)
        if value is wanted
    ]
    plain = all(
        name == "weight" and type(module) in (nn.Linear, Conv1D, nn.Embedding) for _, module, name in shared
    )
    return [path for path, _, _ in shared] if plain else []


def replace(network: nn.Module, paths: list[str], held: Held, dtype: torch.dtype) -> None:
    """Put stacked modules in the place of the modules at these paths."""
    for path in paths:
        module = network.get_submodule(path)
        is_embedding = isinstance(module, nn.Embedding)
        made = StackedEmbedding(held, dtype) if is_embedding else StackedLinear(held, module.bias)  # type: ignore[arg-type]
        network.set_submodule(path, made)
