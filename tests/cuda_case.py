"""CUDA without a GPU: torch's FakeTensorMode checks the devices of every operation, a CPU shadow keeps real values.

Inside `fake_cuda()` tensors may live on "cuda": an operation on tensors of different devices raises what a real GPU
would. As every tensor has its values in a shadow on the CPU, branches on data are taken as they are on a real one.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten


class Shadowed(TorchDispatchMode):
    """Runs each operation on fake tensors, for the devices, and on their shadows, for the values."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        with unset_fake_temporarily():
            real = func(*tree_map(_real, args), **tree_map(_real, kwargs))
        flat, spec = tree_flatten(real)
        if not any(isinstance(leaf, Tensor) for leaf in flat):
            # A number that the code branches on; or the device, of which autograd is told the shadow's: for CUDA it
            # would want streams.
            return real
        if torch._C._current_graph_task_id() != -1 and kwargs.get("device") == torch.device("cpu"):
            kwargs = {**kwargs, "device": torch.device("cuda")}  # what autograd makes, on the device that it was told
        try:
            fake = func(*args, **kwargs)
        except (DynamicOutputShapeException, DataDependentOutputException):
            device = next(leaf.device for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, FakeTensor))
            fake = tree_unflatten([torch.empty(leaf.shape, dtype=leaf.dtype, device=device) for leaf in flat], spec)
        for leaf, shadow in zip(tree_flatten(fake)[0], flat, strict=True):
            if isinstance(leaf, FakeTensor):
                assert leaf.shape == shadow.shape, (func, leaf.shape, shadow.shape)
                leaf.shadow = shadow
        return fake


def _real(value):
    """A tensor's shadow, and the CPU for any device."""
    if isinstance(value, FakeTensor):
        return value.shadow
    return torch.device("cpu") if isinstance(value, torch.device) else value


@contextmanager
def fake_cuda() -> Iterator[None]:
    """Inside it "cuda" is a device."""
    with sdpa_kernel(SDPBackend.MATH), FakeTensorMode(allow_non_fake_inputs=True), Shadowed():
        yield


def to_cuda(module: nn.Module) -> nn.Module:
    """Move parameters and buffers, as `module.cuda()` would; shared ones stay shared."""
    moved: dict[int, Tensor] = {}
    for part in module.modules():
        for kind in (part._parameters, part._buffers):
            for name, tensor in kind.items():
                if tensor is not None:
                    if id(tensor) not in moved:
                        copy = tensor.detach().to("cuda")
                        is_parameter = isinstance(tensor, nn.Parameter)
                        moved[id(tensor)] = nn.Parameter(copy, tensor.requires_grad) if is_parameter else copy
                    kind[name] = moved[id(tensor)]
    return module
