"""The first family's release: its names and shapes at full size, its config.json, and a small folder of its layout."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

import small
from saccade.checkpoint.flashsloth import FLASHSLOTH
from saccade.config import SaccadeConfig

WEIGHTS, CONFIG, INDEX = "model.safetensors", "config.json", "model.safetensors.index.json"
LAYOUT = replace(FLASHSLOTH, published=small.config)
SMALL = {"layouts": (LAYOUT,)}
HISTORY = ("dtype", "transformers_version", "_name_or_path", "architectures")
# config.json of the release, as its training code wrote it.
RELEASED: dict[str, Any] = {
    "architectures": ["FlashSlothForCausalLM"],
    "model_type": "flashsloth",
    "attention_dropout": 0.0,
    "bos_token_id": 50256,
    "embd_pdrop": 0.0,
    "eos_token_id": 50256,
    "freeze_mm_mlp_adapter": False,
    "hidden_act": "gelu_new",
    "hidden_size": 2560,
    "image_aspect_ratio": "square",
    "image_hd": False,
    "image_token": "<image>",
    "image_token_index": 50297,
    "initializer_range": 0.02,
    "intermediate_size": 10240,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 2048,
    "mm_hidden_size": 1152,
    "mm_projector_lr": None,
    "mm_projector_type": "mlp2x_gelu",
    "mm_use_im_patch_token": False,
    "mm_use_im_start_end": False,
    "mm_vision_select_feature": "patch",
    "mm_vision_select_layer": -2,
    "mm_vision_tower": "checkpoints/siglip-so400m-patch14-384",
    "model_hd": False,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "partial_rotary_factor": 0.4,
    "qk_layernorm": False,
    "resid_pdrop": 0.1,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "tokenizer_model_max_length": 3072,
    "tokenizer_padding_side": "right",
    "torch_dtype": "float16",
    "transformers_version": "4.38.0",
    "tune_mm_mlp_adapter": False,
    "use_cache": True,
    "use_mm_proj": True,
    "vocab_size": 51200,
}


def full_size() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the 905 released tensors, written down from the release's description."""
    shapes: dict[str, tuple[int, ...]] = {}

    def both(name: str, *weight: int) -> None:
        shapes[f"{name}.weight"] = weight
        shapes[f"{name}.bias"] = weight[:1]

    shapes["model.embed_tokens.weight"] = (51200, 2560)
    for layer in range(32):
        for part in ("q_proj", "k_proj", "v_proj", "dense"):
            both(f"model.layers.{layer}.self_attn.{part}", 2560, 2560)
        both(f"model.layers.{layer}.mlp.fc1", 10240, 2560)
        both(f"model.layers.{layer}.mlp.fc2", 2560, 10240)
        both(f"model.layers.{layer}.input_layernorm", 2560)
    both("model.final_layernorm", 2560)
    both("lm_head", 51200, 2560)
    tower = "model.vision_tower.vision_tower.vision_model"
    both(f"{tower}.embeddings.patch_embedding", 1152, 3, 14, 14)
    shapes[f"{tower}.embeddings.position_embedding.weight"] = (729, 1152)
    for layer in range(26):
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            both(f"{tower}.encoder.layers.{layer}.self_attn.{part}", 1152, 1152)
        both(f"{tower}.encoder.layers.{layer}.mlp.fc1", 4304, 1152)
        both(f"{tower}.encoder.layers.{layer}.mlp.fc2", 1152, 4304)
        both(f"{tower}.encoder.layers.{layer}.layer_norm1", 1152)
        both(f"{tower}.encoder.layers.{layer}.layer_norm2", 1152)
    both("model.mm_projector.0", 2560, 1152)
    both("model.mm_projector.2", 2560, 2560)
    both("model.pooling.mlp.0", 1152, 1152)
    both("model.pooling.mlp.3", 1, 1152)
    shapes["model.learnable_tokens.token"] = (9, 2560)
    query = "model.lqformer"
    both(f"{query}.down_projector_learnable_text", 576, 2560)
    both(f"{query}.down_projector_image", 576, 1152)
    for part in ("q_proj", "k_proj", "v_proj"):
        both(f"{query}.layers.0.t2q_attn.{part}", 576, 576)
    both(f"{query}.layers.0.i2q_attn.q_proj", 576, 576)
    both(f"{query}.layers.0.i2q_attn.k_proj", 576, 576)
    both(f"{query}.layers.0.i2q_attn.v_proj", 1152, 1152)
    for norm in ("ln_text", "ln_q", "ln_kv"):
        both(f"{query}.layers.0.{norm}", 576)
    both(f"{query}.up_projector", 2560, 1152)
    return shapes


def settings(config: SaccadeConfig) -> dict[str, Any]:
    """A configuration as data, without its history."""

    def kept(tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        return {name: kept(value) for name, value in tree.items() if name not in HISTORY}

    return kept(json.loads(config.to_json_string(use_diff=False)))


def base_tokenizer(size: int = small.QUERY_ID) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of `size` tokens; the query token is the next, as it is for the decoder's own."""
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<|endoftext|>"]
    pieces += [f"filler{number}" for number in range(size - len(pieces))]
    tokenizer = Tokenizer(models.BPE(vocab={piece: number for number, piece in enumerate(pieces)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=end, eos_token=end, unk_token=end)


def released_folder(folder: Path, tensors: dict[str, Tensor], config: SaccadeConfig) -> Path:
    """Write a folder as the release is: its names, its config.json, the decoder's tokenizer and two tokens more."""
    folder.mkdir()
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS, metadata={"format": "pt"}
    )
    text = json.loads(config.text_config.to_json_string(use_diff=False))
    fields = {name: text[name] for name in RELEASED.keys() & text.keys() - {"model_type", "architectures"}}
    fields |= {"mm_hidden_size": config.vision_config.hidden_size, "rope_theta": text["rope_parameters"]["rope_theta"]}
    fields |= {"partial_rotary_factor": text["rope_parameters"]["partial_rotary_factor"], "torch_dtype": "float32"}
    fields["eos_token_id"] = text["bos_token_id"]
    (folder / CONFIG).write_text(json.dumps({**RELEASED, **fields}))
    tokenizer = base_tokenizer(config.query_token_id)
    tokenizer.add_special_tokens({"additional_special_tokens": [config.prompt.query_token]})
    tokenizer.add_special_tokens({"eos_token": "</s>"})
    tokenizer.save_pretrained(folder)
    return folder
