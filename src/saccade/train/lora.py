"""Low-rank adapters: put beside a model's linear layers, saved in PEFT's format, and merged into the layers again."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from saccade.checkpoint import open_checkpoint
from saccade.checkpoint.files import listed
from saccade.config import SaccadeConfig
from saccade.errors import CheckpointError, ConfigError
from saccade.image.processor import build_processor
from saccade.model import SaccadeForConditionalGeneration
from saccade.train.stages import Group

ADAPTER_FILE = "adapter_model.safetensors"
# What a stage trained as a whole beside its adapters, under the model's own names.
WHOLE_FILE = "trained.safetensors"
# PEFT names the tensors of a file as its wrapper sees the model.
_PREFIX = "base_model.model."
_INFIX = re.compile(r"\.base_layer(?=\.)|\.lora_[AB]\.default(?=\.)")
_OF_ADAPTER = re.compile(r"\.lora_[AB]\.default\.")


def plain_name(name: str) -> str:
    """Return the name that a parameter, or the parameter that an adapter stands beside, has without adapters."""
    return _INFIX.sub("", name)


def is_adapter(name: str) -> bool:
    """Whether a parameter belongs to an adapter."""
    return _OF_ADAPTER.search(name) is not None


class Adapters:
    """The adapters in a model; its layers keep their names, and it stays the ordinary model it was.

    Args:
        model: What gets them, in place.
        config: PEFT's `LoraConfig`.
    """

    def __init__(self, model: SaccadeForConditionalGeneration, config: Any) -> None:
        from peft import LoraModel

        self.model = model
        self.config = config
        self.tuner = LoraModel(model, config, "default")

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the adapters' tensors by the names they have in PEFT's files."""
        from peft import get_peft_model_state_dict

        given: dict[str, torch.Tensor] = get_peft_model_state_dict(self.model, save_embedding_layers=False)
        return {_PREFIX + name: tensor.detach().cpu().contiguous() for name, tensor in given.items()}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take tensors of the same names and shapes as `tensors` returns.

        Raises:
            CheckpointError: when names or shapes differ, as they do beside another base.
        """
        from peft import set_peft_model_state_dict

        _check_fit("adapter", tensors, self.tensors())
        set_peft_model_state_dict(self.model, {name.removeprefix(_PREFIX): value for name, value in tensors.items()})

    def save(self, folder: Path) -> None:
        """Write the adapters in PEFT's format, and beside them what was trained as a whole and the configuration."""
        folder.mkdir(parents=True, exist_ok=True)
        self.config.save_pretrained(str(folder))
        save_file(self.tensors(), folder / ADAPTER_FILE, metadata={"format": "pt"})
        self.model.config.save_pretrained(folder)
        whole = {
            plain_name(name): parameter.detach().cpu().contiguous()
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad and not is_adapter(name)
        }
        if whole:
            save_file(whole, folder / WHOLE_FILE, metadata={"format": "pt"})

    def merge(self) -> None:
        """Add the adapters to the weights they stand beside, and take them out of the model."""
        self.tuner.merge_and_unload()


def add_adapters(model: SaccadeForConditionalGeneration, groups: Sequence[Group]) -> Adapters | None:
    """Put adapters beside the linear layers of the groups that ask for them.

    Returns:
        The adapters; None where no group asks for any.

    Raises:
        ConfigError: when groups ask for adapters of several kinds, or for one where there is no linear layer or an
            output head that is also the table of embeddings; or when PEFT is not installed.
    """
    asking = [group for group in groups if group.lora is not None]
    if not asking:
        return None
    kinds = {group.lora for group in asking}
    if len(kinds) > 1:
        raise ConfigError("the groups of a stage ask for different adapters: give all of them one rank, alpha, dropout")
    kind = kinds.pop()
    assert kind is not None
    names = [name for group in asking for name in _linear_layers(model, group)]
    if model.config.tie_word_embeddings and "lm_head" in names:
        raise ConfigError("lm_head shares its weight with the embeddings: leave it out of the groups with adapters")
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise ConfigError("LoRA needs the library peft: pip install 'saccade[train]'") from error
    config = LoraConfig(
        r=kind.rank,
        lora_alpha=kind.alpha,  # type: ignore[arg-type]  # a factor like any other
        lora_dropout=kind.dropout,
        target_modules=names,
        base_model_name_or_path=model.config.name_or_path or None,
    )
    return Adapters(model, config)


def merge_adapter(folder: Path, out: Path, base: str | None = None) -> Path:
    """Write the model that an adapter folder makes of its base: an ordinary one that `saccade.load` reads.

    Args:
        folder: What a stage with adapters wrote.
        out: Where the model goes.
        base: Name, folder or hub id of the model that the adapters were trained beside; by default the one that the
            folder names.

    Raises:
        CheckpointError: when the folder holds no adapters, names no base, or does not fit it, or `out` holds something.
    """
    from peft import LoraConfig

    files = ("adapter_config.json", ADAPTER_FILE, "config.json")
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"{folder} has no {listed(missing)}: name the adapter folder of a stage")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out} is not an empty folder: name a new one, or empty it")
    config = LoraConfig.from_pretrained(str(folder))
    source = base or config.base_model_name_or_path
    if not source:
        raise CheckpointError(f"{folder} does not say which model it was trained beside: name it with --base")
    model, processor = open_checkpoint(source, dtype=torch.float32)  # as they were trained beside it
    wanted = SaccadeConfig.from_pretrained(folder)
    whole = load_file(folder / WHOLE_FILE) if (folder / WHOLE_FILE).is_file() else {}
    own = {name: value for name, value in model.state_dict().items() if name in whole}
    _check_fit("fully trained part", whole, own)
    model.load_state_dict(whole, strict=False)
    try:
        adapters = Adapters(model, config)
    except ValueError as error:
        raise CheckpointError(f"{source} has no layer of those that {folder} adapts: name its base") from error
    adapters.load(load_file(folder / ADAPTER_FILE))
    adapters.merge()
    # A stage may have changed how pictures are cut; the processor must cut them as the adapters saw them.
    model.config.image = wanted.image
    model.config.description = wanted.description
    build_processor(model.config, processor.tokenizer).save_pretrained(out)
    model.save_pretrained(out)
    return out


def _linear_layers(model: nn.Module, group: Group) -> list[str]:
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and re.search(group.pattern, f"{name}.weight")
    ]
    if not names:
        raise ConfigError(f"group {group.pattern!r} asks for adapters, but names no linear layer: correct the pattern")
    return names


def _check_fit(what: str, given: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in given.items()}
    wrong = sorted(shapes.items() ^ {name: tuple(tensor.shape) for name, tensor in own.items()}.items())
    if wrong:
        names = dict.fromkeys(name.removeprefix(_PREFIX) for name, _ in wrong)
        raise CheckpointError(
            f"the {what} does not fit its base in {listed(names)}: name the model it was trained beside with --base"
        )
