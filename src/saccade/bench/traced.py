"""One training step on tensors that have shapes and no content: what it computes, and what it holds at most.

Nothing is allocated for weights, activations or gradients, so a model that fits no machine here is traced all the same.
The modules run as they do in training, layer for layer, also where activations are computed again.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedConfig

from saccade.bench.counted import counter
from saccade.bench.skeleton import build
from saccade.model.loss import HELD

Trace = Callable[[Any, Callable[[Any], Any]], Tensor]


@dataclass(frozen=True)
class StepCost:
    """What one pass forwards and backwards takes.

    Attributes:
        parameters: Parameters, tied ones once.
        trained: Those that learn.
        activation_bytes: The most that is held beside weights, gradients and the optimizer's state.
        flops: Of both directions, what is computed again included.
    """

    parameters: int
    trained: int
    activation_bytes: int
    flops: int


def trace_step(
    config: PreTrainedConfig,
    prepare: Callable[[Any], nn.Module],
    loss: Trace,
    *,
    checkpointing: bool,
    dtype: torch.dtype,
) -> StepCost:
    """Trace a step of a model with weights in float32.

    Args:
        config: The model.
        prepare: Given the model, adds what the training adds, freezes what is frozen, and returns what is trained.
        loss: Given what is trained and what takes the content from tensors of pixels, returns the loss.
        checkpointing: Whether activations are computed again in the backward pass.
        dtype: What matrix products compute in.

    Raises:
        ConfigError: when no such model can be built.
    """
    with init_empty_weights(include_buffers=False):
        model = build(config)
        model.tie_weights()
        trained = prepare(model)
    if checkpointing:
        compute_again(model)
    fakes = FakeTensorMode(allow_non_fake_inputs=True)
    with fakes:
        _replace(trained)
    trained.train()
    learning = [parameter for parameter in trained.parameters() if parameter.requires_grad]
    with fakes:
        for parameter in learning:
            parameter.grad = torch.empty(parameter.shape)  # accumulated, and not counted as an activation

    def without_content(given: Any) -> Any:
        return tree_map(lambda one: fakes.from_tensor(one) if _is_float(one) else one, given)

    with Watch() as watch:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            found = loss(trained, without_content)
        found.backward()
    return StepCost(
        parameters=sum(parameter.numel() for parameter in trained.parameters()),
        trained=sum(parameter.numel() for parameter in learning),
        activation_bytes=watch.peak,
        flops=watch.flops,
    )


def compute_again(model: Any) -> None:
    """Let a model of transformers compute its activations again in the backward pass, rather than keep them."""
    renamed = getattr(model, "activation_checkpointing_enable", None)  # the name that version 6 keeps
    (renamed or model.gradient_checkpointing_enable)({"use_reentrant": False})


def loss_at_end(model: Any, inputs: dict[str, Any], tokens: int) -> Tensor:
    """Compute the loss of the last tokens of every row, in parts as in training.

    The training finds its tokens by their labels, which takes content; here they are known by their places.

    Args:
        model: Of this package or any picture-and-text model of transformers.
        inputs: Of the model, without labels.
        tokens: How many of a row.
    """
    states = model.model(**inputs, use_cache=False).last_hidden_state[:, -tokens - 1 : -1].flatten(0, 1)
    targets = inputs["input_ids"][:, -tokens:].flatten()
    size = max(1, HELD // model.lm_head.weight.shape[0])
    parts = [_summed(model.lm_head, *part) for part in zip(states.split(size), targets.split(size), strict=True)]
    return torch.stack(parts).sum() / len(targets)


def _summed(head: nn.Module, states: Tensor, targets: Tensor) -> Tensor:
    def total(states: Tensor) -> Tensor:
        return F.cross_entropy(head(states).float(), targets, reduction="sum")

    found: Tensor = checkpoint(total, states, use_reentrant=False)
    return found


def _replace(model: nn.Module) -> None:
    """Give every parameter a tensor of the device that computes, in place of one on no device."""
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, old in list(module.named_parameters(recurse=False)):
            new = made.setdefault(id(old), nn.Parameter(torch.empty(old.shape), requires_grad=old.requires_grad))
            setattr(module, name, new)


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _attention_backward_flops(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """FLOPs of the five products behind attention `[batch, heads, seq, head_dim]`."""
    batch, heads, length, dim = query.shape
    return int(2 * batch * heads * length * key.shape[2] * (3 * dim + 2 * value.shape[3]))


class Watch(TorchDispatchMode):
    """Sums up FLOPs, and follows how many bytes are alive of those that operators returned inside the block.

    Attributes:
        flops: So far.
        peak: The most bytes that were alive at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.alive = self.peak = 0
        self._known = counter().flop_registry
        self._held: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator."""
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor):
                self._hold(tensor.untyped_storage())
        packet = func._overloadpacket
        if packet is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward:
            self.flops += _attention_backward_flops(*args, **kwargs)
        elif packet in self._known:
            self.flops += self._known[packet](*args, **kwargs, out_val=found)
        return found

    def _hold(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._held:
            return

        def gone(_: Any) -> None:
            self.alive -= size
            del self._held[key]

        self._held[key] = weakref.ref(storage, gone)
        self.alive += size
        self.peak = max(self.peak, self.alive)
