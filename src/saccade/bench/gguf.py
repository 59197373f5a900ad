"""The decoder of a model as a GGUF file, which llama.cpp reads: the same weights, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from saccade.config import SaccadeConfig
from saccade.errors import ConfigError

FAMILIES = ("qwen2", "llama")
# Turns of these lie in the weights alone, or in weights and one factor for each frequency.
TURNS = {"qwen2": ("default",), "llama": ("default", "llama3")}
FORMATS = {torch.float32: "F32", torch.bfloat16: "BF16"}
NO_WORDS = "no_vocab"  # ids go in and logits come out, so the file needs no tokenizer


def check_decoder(config: SaccadeConfig) -> None:
    """Raise ConfigError for a decoder that this cannot write, or that llama.cpp would compute otherwise."""
    text = config.text_config
    family = text.model_type
    if family not in FAMILIES:
        raise ConfigError(
            f"a decoder of the family {family!r} cannot be written as GGUF here, only {' and '.join(FAMILIES)}: name "
            "another model, or take --peer none"
        )
    turns = text.rope_parameters["rope_type"]
    wrong = [
        said
        for said, found in (
            (f"positions of the kind {turns!r}", turns not in TURNS[family]),
            (f"the activation {text.hidden_act!r}", text.hidden_act != "silu"),
            ("a sliding window", bool(getattr(text, "use_sliding_window", False))),
            ("an output head with shifts", config.lm_head_bias),
            ("heads that do not make up its width", _head_dim(text) * text.num_attention_heads != text.hidden_size),
        )
        if found
    ]
    if wrong:
        raise ConfigError(
            f"the {family} decoder has {' and '.join(wrong)}, which llama.cpp does not know of this family: name "
            "another model, or take --peer none"
        )


def write_gguf(model: Any, file: Path) -> None:
    """Write decoder, embeddings and output head of a model; a head tied to the embeddings is left to them.

    Matrices keep their dtype and are written from where they lie; vectors become float32, as llama.cpp wants them.

    Args:
        model: A `SaccadeForConditionalGeneration` on a CPU, in float32 or bfloat16.
        file: Where to.

    Raises:
        ConfigError: for a decoder or a dtype that this cannot write.
    """
    import gguf

    check_decoder(model.config)
    if model.dtype not in FORMATS:
        raise ConfigError(f"weights in {model.dtype} are not written as GGUF: open the model in float32 or bfloat16")
    text = model.config.text_config
    writer = gguf.GGUFWriter(file, text.model_type)
    _describe(writer, text, FORMATS[model.dtype])
    for name, tensor in _tensors(model):
        if tensor.ndim == 1:
            writer.add_tensor(name, tensor.float().numpy())
        else:
            kind = gguf.GGMLQuantizationType[FORMATS[tensor.dtype]]
            writer.add_tensor(name, _bytes(tensor), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(writer: Any, text: Any, number: str) -> None:
    import gguf

    writer.add_file_type(getattr(gguf.LlamaFileType, "ALL_F32" if number == "F32" else f"MOSTLY_{number}"))
    writer.add_context_length(text.max_position_embeddings)
    writer.add_embedding_length(text.hidden_size)
    writer.add_block_count(text.num_hidden_layers)
    writer.add_feed_forward_length(text.intermediate_size)
    writer.add_head_count(text.num_attention_heads)
    writer.add_head_count_kv(text.num_key_value_heads)
    writer.add_key_length(_head_dim(text))
    writer.add_value_length(_head_dim(text))
    writer.add_rope_dimension_count(_head_dim(text))
    writer.add_rope_freq_base(text.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(text.rms_norm_eps)
    writer.add_vocab_size(text.vocab_size)
    writer.add_tokenizer_model(NO_WORDS)


def _tensors(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield (name in the file, tensor); raises ConfigError where a parameter has no name there."""
    import gguf

    text, decoder = model.config.text_config, model.model.language_model
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[text.model_type.upper()], text.num_hidden_layers)
    heads = {"q_proj": text.num_attention_heads, "k_proj": text.num_key_value_heads}
    for own, parameter in decoder.named_parameters():
        name = names.get_name(f"model.{own}", try_suffixes=(".weight", ".bias"))
        if name is None:
            raise ConfigError(f"GGUF has no name for {own} of a {text.model_type} decoder: take --peer none")
        part = own.split(".")[-2]
        turned = text.model_type == "llama" and part in heads
        yield name, _neighbors(parameter.detach(), heads[part]) if turned else parameter.detach()
    if model.lm_head.weight is not decoder.get_input_embeddings().weight:
        yield "output.weight", model.lm_head.weight.detach()
    if text.rope_parameters["rope_type"] != "default":
        yield "rope_freqs.weight", _slowing(text, decoder.rotary_emb.inv_freq)


def _neighbors(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Put the rows that turn together beside one another: of this family llama.cpp turns neighbors, torch halves."""
    halves: torch.Tensor = tensor.unflatten(0, (heads, 2, -1))
    return halves.transpose(1, 2).reshape(tensor.shape)


def _slowing(text: Any, frequencies: torch.Tensor) -> torch.Tensor:
    """Return by how much each frequency is slower than without scaling, float32 `[head_dim / 2]`."""
    width = _head_dim(text)
    steps = torch.arange(0, width, 2, dtype=torch.float32) / width
    slower: torch.Tensor = text.rope_parameters["rope_theta"] ** -steps / frequencies.float().cpu()
    return slower


def _bytes(tensor: torch.Tensor) -> NDArray[np.uint8]:
    """Return a matrix as bytes `[rows, columns * bytes]`, without a copy where it is contiguous."""
    found: NDArray[np.uint8] = tensor.contiguous().view(torch.uint8).numpy()
    return found


def _head_dim(text: Any) -> int:
    return int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)
