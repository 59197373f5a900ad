"""Released folders of the second family at a small size, and what they compute, composed from transformers' modules.

Everything here is written from the description of the release: separately built towers and decoders under the names of
the release, a pixel shuffle and a crop by hand, and an adapter that is an `nn.Sequential`.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import pre_tokenizers
from torch import Tensor, nn
from transformers import Aimv2VisionConfig, Aimv2VisionModel, Qwen2Config, Qwen2ForCausalLM, SiglipVisionConfig
from transformers import SiglipVisionModel as Siglip

from saccade import presets
from saccade.checkpoint.flashvl import FLASHVL, FlashVLLayout
from saccade.config import SaccadeConfig

WEIGHTS, CONFIG = "model.safetensors", "config.json"
SIDE, PATCH, WIDTH, HEADS = 36, 3, 12, 3
GRID, MARGIN = 12, 2
TEXT_WIDTH, HIDDEN, VOCAB = 20, 28, 300
END_OF_TEXT, IM_START, IM_END, IMAGE_ID = 256, 257, 258, 259
SYSTEM_TURN = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"

VISION = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": HEADS,
    "num_channels": 3,
    "image_size": SIDE,
    "patch_size": PATCH,
    "attention_dropout": 0.0,
}
SIGLIP = {"hidden_act": "gelu_pytorch_tanh", "intermediate_size": 14, "layer_norm_eps": 1e-6, **VISION}
AIMV2 = {"hidden_act": "silu", "intermediate_size": 16, "rms_norm_eps": 1e-5, **VISION}
LLM = {
    "vocab_size": VOCAB,
    "hidden_size": TEXT_WIDTH,
    "intermediate_size": 26,
    "num_hidden_layers": 2,
    "num_attention_heads": 5,
    "num_key_value_heads": 1,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "rope_scaling": None,
    "attention_dropout": 0.0,
    "use_sliding_window": False,
    "sliding_window": 2048,
    "max_window_layers": 21,
    "tie_word_embeddings": False,
    "bos_token_id": 256,
    "eos_token_id": 258,
    "use_cache": True,
    "model_type": "qwen2",
    "torch_dtype": "bfloat16",
}


@dataclass(frozen=True)
class Variant:
    """One of the variants: what it declares, and what tells it from the others."""

    name: str
    declared: str
    preset: str
    tower: str
    tokens: int
    taken: int

    def small(self) -> SaccadeConfig:
        """The published configuration at the small size."""
        config = getattr(presets, self.preset)()
        tower = SiglipVisionConfig(**SIGLIP, vision_use_head=False)
        if self.tower == "aimv2":
            tower = Aimv2VisionConfig(**AIMV2, use_head=False)
        text = {**LLM, "rope_parameters": {"rope_type": "default", "rope_theta": LLM["rope_theta"]}}
        dropped = ("rope_theta", "rope_scaling", "torch_dtype", "model_type", "sliding_window", "max_window_layers")
        fields = {
            "vision_config": tower,
            "text_config": Qwen2Config(
                **{name: value for name, value in text.items() if name not in dropped},
                pad_token_id=END_OF_TEXT,
            ),
            "vision": config.vision,
            "compressor": {"kind": "crop", "margin": MARGIN} if self.crops else config.compressor,
            "projector": {**config.projector.model_dump(), "hidden_sizes": (HIDDEN, HIDDEN)},
            "image": {**config.image.model_dump(), "side": SIDE, "margin": MARGIN * PATCH if self.crops else 0},
            "prompt": config.prompt,
            "image_token_id": IMAGE_ID,
        }
        return SaccadeConfig(**fields)

    @property
    def crops(self) -> bool:
        return self.taken == WIDTH


STATIC = Variant("static", "FlashVLStatic", "flashvl_static", "siglip", 36, 4 * WIDTH)
DYNAMIC = Variant("dynamic", "FlashVLDynamic", "flashvl_dynamic", "aimv2", 36, 4 * WIDTH)
ISS = Variant("iss", "FlashVLDynamicISS", "flashvl_iss", "aimv2", 64, WIDTH)
VARIANTS = {variant.name: variant for variant in (STATIC, DYNAMIC, ISS)}

_DECLARED = {variant.declared: variant for variant in VARIANTS.values()}
LAYOUTS: tuple[FlashVLLayout, ...] = tuple(replace(one, published=_DECLARED[one.architecture].small) for one in FLASHVL)


class Reference:
    """A variant with random weights, put together by hand."""

    def __init__(self, variant: Variant) -> None:
        self.variant = variant
        self.vit: Any = Siglip(SiglipVisionConfig(**SIGLIP)) if variant.tower == "siglip" else None
        if self.vit is None:
            self.vit = Aimv2VisionModel(Aimv2VisionConfig(**AIMV2, use_head=False))
        self.adapter = nn.Sequential(
            nn.LayerNorm(variant.taken),
            nn.Linear(variant.taken, HIDDEN),
            nn.GELU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.GELU(),
            nn.Linear(HIDDEN, TEXT_WIDTH),
        )
        fields = {name: value for name, value in LLM.items() if name not in ("torch_dtype", "model_type")}
        self.llm = Qwen2ForCausalLM(Qwen2Config(**fields))
        generator = torch.Generator().manual_seed(len(variant.name))
        for module in (self.vit, self.adapter, self.llm):
            module.eval()
            for parameter in module.parameters():
                parameter.data = torch.randn(parameter.shape, generator=generator) * 0.4

    def tensors(self, *, apple: bool = True) -> dict[str, Tensor]:
        """Everything under the names of the release; AIMv2 as Apple's code has it, or as transformers has it."""
        vit = {f"vit.{name}": tensor for name, tensor in self.vit.state_dict().items()}
        if self.variant.tower == "aimv2" and apple:
            vit = _as_apple(self.vit)
        places = {0: "p0.0", 1: "p0.1", 3: "p0.3", 5: "proj"}
        adapter = {
            f"adp.{places[index]}.{name}": tensor
            for index, layer in enumerate(self.adapter)
            for name, tensor in layer.state_dict().items()
        }
        llm = {f"llm.{name}": tensor for name, tensor in self.llm.state_dict().items()}
        return {name: tensor.clone().contiguous() for name, tensor in {**vit, **adapter, **llm}.items()}

    @torch.no_grad()
    def logits(self, ids: Tensor, pixels: Tensor) -> Tensor:
        """Logits of one row `[1, seq]` that shows the views `[views, 3, side, side]` in order."""
        grid = self.vit(pixels).last_hidden_state.reshape(len(pixels), GRID, GRID, WIDTH)
        tokens = grid[:, MARGIN:-MARGIN, MARGIN:-MARGIN].flatten(1, 2) if self.variant.crops else _shuffle(grid)
        embeds = self.llm.model.embed_tokens(ids)
        embeds[ids == IMAGE_ID] = self.adapter(tokens).reshape(-1, TEXT_WIDTH)
        return self.llm(inputs_embeds=embeds).logits


def _shuffle(grid: Tensor) -> Tensor:
    """Four neighbors side by side, token by token: upper left, upper right, lower left, lower right."""
    half = GRID // 2
    tokens = [
        torch.cat(
            [
                grid[:, 2 * y, 2 * x],
                grid[:, 2 * y, 2 * x + 1],
                grid[:, 2 * y + 1, 2 * x],
                grid[:, 2 * y + 1, 2 * x + 1],
            ],
            -1,
        )
        for y in range(half)
        for x in range(half)
    ]
    return torch.stack(tokens, 1)


def _as_apple(vit: Any) -> dict[str, Tensor]:
    """The tower's weights under the names of Apple's code, with queries, keys and values in one matrix."""
    embeddings = vit.embeddings
    named = {
        "preprocessor.patchifier.proj.weight": embeddings.patch_embed.weight,
        "preprocessor.patchifier.proj.bias": embeddings.patch_embed.bias,
        "preprocessor.patchifier.norm.weight": embeddings.rms_norm.weight,
        "preprocessor.pos_embed": embeddings.position_embedding.weight[None],
        "trunk.post_trunk_norm.weight": vit.rms_norm.weight,
    }
    for number, layer in enumerate(vit.encoder.layers):
        block, attention = f"trunk.blocks.{number}", layer.attention
        thirds = (attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight)
        named |= {
            f"{block}.attn.qkv.weight": torch.cat(thirds),
            f"{block}.attn.proj.weight": attention.out_proj.weight,
            f"{block}.norm_1.weight": layer.rms_norm1.weight,
            f"{block}.norm_2.weight": layer.rms_norm2.weight,
            f"{block}.mlp.fc1.weight": layer.ffn.gate_proj.weight,
            f"{block}.mlp.fc2.weight": layer.ffn.down_proj.weight,
            f"{block}.mlp.fc3.weight": layer.ffn.up_proj.weight,
        }
    return {f"vit.{name}": tensor.detach() for name, tensor in named.items()}


def config_json(variant: Variant) -> dict[str, Any]:
    """The config.json of a variant, as far as it is known."""
    tower = SIGLIP if variant.tower == "siglip" else AIMV2
    kind = "siglip_vision_model" if variant.tower == "siglip" else "aimv2"
    return {
        "model_type": f"{variant.declared}Config",
        "architectures": [variant.declared],
        "auto_map": {"AutoModel": f"modeling_{variant.declared}.{variant.declared}"},
        "vision_config": {"model_type": kind, **tower, "proj_output_dim": TEXT_WIDTH},
        "llm_config": LLM,
        "image_token_num": variant.tokens,
        "intermediate_size": HIDDEN,
        "torch_dtype": "float32",
        "transformers_version": "4.50.0.dev0",
    }


def write_released(folder: Path, variant: Variant, tensors: dict[str, Tensor]) -> Path:
    """Write a folder as a release is: weights, config.json, and the files of the decoder's tokenizer."""
    folder.mkdir()
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    _write(folder / CONFIG, config_json(variant))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    _write(folder / "vocab.json", {letter: number for number, letter in enumerate(alphabet)})
    (folder / "merges.txt").write_text("#version: 0.2\n")
    specials = {"<|endoftext|>": END_OF_TEXT, "<|im_start|>": IM_START, "<|im_end|>": IM_END}
    _write(folder / "added_tokens.json", specials)
    added = {str(number): {"content": token, "special": True} for token, number in specials.items()}
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "added_tokens_decoder": added,
            "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "bos_token": None,
            "unk_token": None,
        },
    )
    generation = {"_from_model_config": True, "bos_token_id": 256, "eos_token_id": 258, "use_cache": False}
    _write(folder / "generation_config.json", generation)
    return folder


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2))
