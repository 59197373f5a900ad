"""One model spread over processes: each keeps a part of every weight (FSDP2), and writes its part of a checkpoint."""

import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.optim.lr_scheduler import LRScheduler
from transformers import Trainer
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.trainer_utils import TrainOutput

from saccade.errors import ConfigError

# The folder in a checkpoint that holds what every process wrote.
PARTS = "parts"


def shard(module: nn.Module) -> nn.Module:
    """Copy a module and divide every weight of the copy among the processes of the run.

    A layer of the tower or the decoder is put together while it computes. All else is put together for a whole step:
    the query module, the embeddings and the output head are called from several places. The copy lies on the devices
    of the processes, and never as a whole on one of them; the module given stays as it is.
    """
    copy = deepcopy(module)
    device = PartialState().device.type
    mesh = init_device_mesh(device, (PartialState().num_processes,))
    # Inputs are left to autocast, as without sharding: labels and positions may be floats.
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if device == "cuda" else None,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,
    )
    for part in copy.modules():
        if isinstance(part, GradientCheckpointingLayer):
            fully_shard(part, mesh=mesh, mp_policy=policy)
    fully_shard(copy, mesh=mesh, mp_policy=policy)
    return copy


@torch.no_grad()
def gather(sharded: nn.Module, module: nn.Module) -> None:
    """Bring what a sharded copy learned back into the module it was made of, on every process.

    All processes have to call it, since each holds what the others lack. It takes over which parameters are trained,
    too.
    """
    for whole, part in zip(module.parameters(), sharded.parameters(), strict=True):
        whole.copy_(part.full_tensor() if isinstance(part, DTensor) else part)
        whole.requires_grad_(part.requires_grad)
    for buffer, its_copy in zip(module.buffers(), sharded.buffers(), strict=True):
        buffer.copy_(its_copy)


class ShardingTrainer(Trainer):
    """A Trainer that can divide its model among the processes.

    What accelerate calls FSDP is DDP on a CPU without a word, so that no test could tell; here torch's own
    `fully_shard` does it on any device. Checkpoints are then torch's distributed ones: as many processes as there are
    read them, however many wrote them.

    Args:
        model: What is trained. Sharded, a copy is, and `model` gets its weights when `train` returns.
        sharded: Whether every process keeps only its part of the model, its gradients and its optimizer.
        **kwargs: Those of the Trainer.

    Attributes:
        learner: The module that learns: `model`, or its sharded copy.
    """

    def __init__(self, model: nn.Module, *, sharded: bool = False, **kwargs: Any) -> None:
        self.given, self.sharded = model, sharded
        self.learner = shard(model) if sharded else model
        super().__init__(self.learner, **kwargs)
        if sharded:
            # Autocast, and nothing else that accelerate does for several processes: it knows only DDP for this model.
            learner = self.accelerator.prepare_model(self.learner, device_placement=False, evaluation_mode=True)
            learner._is_accelerate_prepared = True

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train; the module given to the trainer then holds the weights, on every process."""
        with warnings.catch_warnings():
            # Logits are a view of what the head computes. Nothing writes into them.
            warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
            output = super().train(*args, **kwargs)
        if self.sharded:
            gather(self.learner, self.given)
        return output

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the model, but not that of a sharded checkpoint, whose parts go with those of the optimizer."""
        if not (self.sharded and _internal_call):
            super().save_model(output_dir, _internal_call)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Load the weights of a checkpoint; those of a sharded one come with the optimizer.

        Raises:
            ConfigError: when the checkpoint was written sharded and this run is not, or the other way round.
        """
        in_parts = (Path(resume_from_checkpoint) / PARTS).is_dir()
        if in_parts != self.sharded:
            raise ConfigError(
                f"{resume_from_checkpoint} was written {'with' if in_parts else 'without'} --sharded: go on the same "
                "way, or remove it to start the stage again"
            )
        if not self.sharded:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.sharded:
            save(self._parts(), checkpoint_id=Path(output_dir) / PARTS)
        else:
            super()._save_optimizer_and_scheduler(output_dir)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if not self.sharded or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        optimizer, schedule = self._stepping()
        parts = self._parts()
        load(parts, checkpoint_id=Path(checkpoint) / PARTS)
        weights, moments = parts["model"], parts["optimizer"]
        set_state_dict(self.learner, optimizer, model_state_dict=weights, optim_state_dict=moments)
        schedule.load_state_dict(parts["schedule"])

    def _parts(self) -> dict[str, Any]:
        """Return weights, optimizer and schedule as this process holds them."""
        optimizer, schedule = self._stepping()
        weights, moments = get_state_dict(self.learner, optimizer)
        return {"model": weights, "optimizer": moments, "schedule": schedule.state_dict()}

    def _stepping(self) -> tuple[torch.optim.Optimizer, LRScheduler]:
        """Return the optimizer, out of what accelerate wraps it in, and the schedule."""
        optimizer, schedule = self.optimizer, self.lr_scheduler
        assert isinstance(optimizer, AcceleratedOptimizer)
        assert schedule is not None
        return optimizer.optimizer, schedule
