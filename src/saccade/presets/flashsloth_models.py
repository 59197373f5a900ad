"""FlashSloth (CVPR 2025) as published."""

from typing import Any

from transformers import PhiConfig, SiglipVisionConfig

from saccade.config import (
    ImageConfig,
    ProjectorConfig,
    PromptConfig,
    QueryConfig,
    SaccadeConfig,
    SapConfig,
    VisionFeatureConfig,
)

FLASHSLOTH_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. "
)


# The pictures of FlashSloth-HD as its code cuts them; the paper (Sec. 3.3) says only that it follows LLaVA-NeXT.
FLASHSLOTH_TILES: dict[str, Any] = {"layout": "tiles", "fit": "pad", "tiles_per_side": 2, "thumbnail_fit": "squash"}


def flashsloth() -> SaccadeConfig:
    """FlashSloth-3.2B: SigLIP so400m at 384, SAP to 81 tokens, 9 queries before the eighth layer of Phi-2.

    3,196,373,985 parameters (FlashSloth, CVPR 2025; released as FlashSloth-3.2B).
    """
    return SaccadeConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=1152,
            intermediate_size=4304,
            num_hidden_layers=27,
            num_attention_heads=16,
            image_size=384,
            patch_size=14,
            vision_use_head=False,
        ),
        text_config=PhiConfig(
            vocab_size=51200,
            hidden_size=2560,
            intermediate_size=10240,
            num_hidden_layers=32,
            num_attention_heads=32,
            max_position_embeddings=2048,
            resid_pdrop=0.1,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.4},
            bos_token_id=50256,
            eos_token_id=50296,
            pad_token_id=50256,
        ),
        vision=VisionFeatureConfig(layer=-2, post_norm=False),
        compressor=SapConfig(window=3),
        projector=ProjectorConfig(hidden_sizes=(2560,)),
        query=QueryConfig(num_queries=9, hidden_size=576, num_heads=32, before_layers=(7,), init_token_id=764),
        image=ImageConfig(side=384),
        prompt=PromptConfig(system=FLASHSLOTH_SYSTEM, query_token="<learnable>", num_queries=9),
        image_token_id=50297,
        query_token_id=50295,
        lm_head_bias=True,
    )


def flashsloth_hd() -> SaccadeConfig:
    """FlashSloth-HD-3.2B: a thumbnail and four tiles of the picture at 768, 405 visual tokens; else as `flashsloth`."""
    config = flashsloth()
    config.image = ImageConfig(side=384, **FLASHSLOTH_TILES)
    return config
