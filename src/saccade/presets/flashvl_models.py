"""Flash-VL 2B (2025) as published, and the variants that its ablations compare."""

from typing import Any

from transformers import Aimv2VisionConfig, LlamaConfig, Qwen2Config, SiglipVisionConfig

from saccade.config import (
    CropConfig,
    ImageConfig,
    PixelShuffleConfig,
    ProjectorConfig,
    PromptConfig,
    SaccadeConfig,
    VisionFeatureConfig,
)

# Qwen's template with the system turn that the released code sets (Flash-VL; third-party loaders).
CHATML = PromptConfig(
    system="You are a helpful assistant.",
    system_start="<|im_start|>system\n",
    system_end="<|im_end|>\n",
    user_start="<|im_start|>user\n",
    user_end="<|im_end|>\n",
    assistant_start="<|im_start|>assistant\n",
    answer_start="",
    assistant_end="<|im_end|>",
    turn_separator="\n",
)
# The texts around a tile that the released code knows; that they stand there is our reading of it.
FLASHVL_TILES = {"view_start": "[PLACEHOLDER_0]", "view_end": "[PLACEHOLDER_1]"}
# Pictures as AIMv2 takes them.
AIMV2_PICTURE: dict[str, Any] = {
    "side": 448,
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
}


def flashvl_static() -> SaccadeConfig:
    """Flash-VL-2B, static: SigLIP2 so400m at 512, pixel shuffle to 256 tokens, Qwen2.5-1.5B.

    2,286,067,952 parameters with an output head of its own (Flash-VL, arXiv 2505.09498; released as
    FlashVL-2B-Static).
    """
    return SaccadeConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=1152,
            intermediate_size=4304,
            num_hidden_layers=27,
            num_attention_heads=16,
            image_size=512,
            patch_size=16,
            vision_use_head=False,
        ),
        text_config=_qwen_1_5b(),
        vision=VisionFeatureConfig(layer=-1),
        compressor=PixelShuffleConfig(window=2),
        projector=ProjectorConfig(hidden_sizes=(7168, 7168), input_norm=True),
        image=ImageConfig(side=512, resample="bilinear"),
        prompt=CHATML,
        image_token_id=151665,
    )


def flashvl_dynamic() -> SaccadeConfig:
    """Flash-VL-2B, dynamic: AIMv2 huge at 448 on a thumbnail and up to four tiles, 256 tokens each.

    2,565,578,240 parameters (released as FlashVL-2B-Dynamic).
    """
    return _in_tiles(flashvl_static_aimv2())


def flashvl_iss() -> SaccadeConfig:
    """Flash-VL-2B with implicit semantic stitching: tiles that overlap, and what they share dropped, 576 tokens each.

    Four patches on each side of a view are dropped, an eighth of the side, as the paper says (Sec. 3.3); 2,532,538,880
    parameters (released as FlashVL-2B-Dynamic-ISS).
    """
    config = flashvl_overlapped()
    config.compressor = CropConfig(margin=4)
    return config


def flashvl_overlapped() -> SaccadeConfig:
    """`flashvl_dynamic` with the overlapping tiles of `flashvl_iss`, of which no token is dropped (Table 6)."""
    return overlapping(flashvl_dynamic(), patches=4)


def flashvl_dynamic_siglip2() -> SaccadeConfig:
    """`flashvl_dynamic` with the tower of `flashvl_static`, whose tiles are 512 pixels a side (Table 10)."""
    return _in_tiles(flashvl_static())


def flashvl_static_aimv2() -> SaccadeConfig:
    """`flashvl_static` with AIMv2 huge at 448, 256 tokens (Table 3)."""
    config = flashvl_static()
    config.vision_config = Aimv2VisionConfig(
        hidden_size=1536,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=12,
        image_size=448,
        patch_size=14,
        use_head=False,
    )
    config.vision = VisionFeatureConfig(layer=-1, norm_module="rms_norm")
    config.image = ImageConfig(**AIMV2_PICTURE)
    return config


def flashvl_static_siglip2_large() -> SaccadeConfig:
    """`flashvl_static` with SigLIP2 large at 384, 144 tokens (Table 3)."""
    config = flashvl_static()
    config.vision_config = SiglipVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=384,
        patch_size=16,
        vision_use_head=False,
    )
    config.image = ImageConfig(side=384, resample="bilinear")
    return config


def flashvl_static_2_linear() -> SaccadeConfig:
    """`flashvl_static` with LLaVA's adapter, two linear layers without a norm (Table 8, there on another tower)."""
    config = flashvl_static()
    config.projector = ProjectorConfig(hidden_sizes=(config.text_config.hidden_size,))
    return config


def flashvl_static_qwen2() -> SaccadeConfig:
    """`flashvl_static` with Qwen2-1.5B, whose tokenizer has fewer special tokens (Table 9, there on another tower)."""
    config = flashvl_static()
    config.image_token_id = 151646
    return config


def flashvl_static_llama() -> SaccadeConfig:
    """`flashvl_static` with Llama-3.2-1B and its template (Table 9, there on another tower).

    Its table of embeddings has no free row at the end, so a reserved token stands for the picture.
    """
    config = flashvl_static()
    config.text_config = LlamaConfig(
        vocab_size=128256,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=64,
        max_position_embeddings=131072,
        rms_norm_eps=1e-5,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        bos_token_id=128000,
        eos_token_id=128009,
        pad_token_id=128004,
        tie_word_embeddings=False,
    )
    config.prompt = PromptConfig(
        system="You are a helpful assistant.",
        system_start="<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n",
        system_end="<|eot_id|>",
        user_start="<|start_header_id|>user<|end_header_id|>\n\n",
        user_end="<|eot_id|>",
        assistant_start="<|start_header_id|>assistant<|end_header_id|>\n\n",
        answer_start="",
        assistant_end="<|eot_id|>",
        image_token="<|reserved_special_token_0|>",
    )
    config.image_token_id = 128002
    return config


def _in_tiles(config: SaccadeConfig) -> SaccadeConfig:
    """Return a model of single views with a thumbnail and up to four tiles instead, as Flash-VL cuts them."""
    config.image = ImageConfig(**config.image.model_dump() | {"layout": "dynamic", "max_tiles": 4})
    config.prompt = PromptConfig(**config.prompt.model_dump() | FLASHVL_TILES)
    return config


def overlapping(config: SaccadeConfig, patches: int) -> SaccadeConfig:
    """Return a model of tiles with views that repeat so many patches of their neighbors, in a black frame, instead."""
    margin = patches * config.vision_config.patch_size
    config.image = ImageConfig(**config.image.model_dump() | {"margin": margin, "pad_value": 0})
    return config


def _qwen_1_5b() -> Qwen2Config:
    """Qwen2-1.5B and Qwen2.5-1.5B, which differ in weights and tokenizer only."""
    return Qwen2Config(
        vocab_size=151936,
        hidden_size=1536,
        intermediate_size=8960,
        num_hidden_layers=28,
        num_attention_heads=12,
        num_key_value_heads=2,
        max_position_embeddings=32768,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
        bos_token_id=151643,
        eos_token_id=151645,
        pad_token_id=151643,
        tie_word_embeddings=False,
    )
