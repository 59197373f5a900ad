"""Nano: the published shapes at the size of a laptop, on one tower and one tokenizer."""

from typing import Any

from transformers import PhiConfig, Qwen2Config, SiglipVisionConfig

from saccade.config import (
    CropConfig,
    ImageConfig,
    PixelShuffleConfig,
    ProjectorConfig,
    PromptConfig,
    QueryConfig,
    SaccadeConfig,
    SapConfig,
    VisionFeatureConfig,
)
from saccade.presets.flashsloth_models import FLASHSLOTH_TILES
from saccade.presets.flashvl_models import overlapping

# Decoder sizes that all models on nano's tower share, and the ids of nano's tokenizer.
NANO_DECODER: dict[str, Any] = {
    "vocab_size": 768,
    "hidden_size": 192,
    "intermediate_size": 576,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    # At so small a width the usual 0.02 leaves the queries' attention flat, and they never learn to look.
    "initializer_range": 0.08,
    "bos_token_id": 0,
    "eos_token_id": 3,
    "pad_token_id": 0,
}
# Smaller, so that what a second family adds to nano's tower fits what the package has left: 1.7 million parameters.
NANO_FLASHVL_DECODER: dict[str, Any] = NANO_DECODER | {
    "intermediate_size": 352,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}


def nano() -> SaccadeConfig:
    """The model that ships with the package: FlashSloth in shape, 5 million parameters, trained on the rendered world.

    Its tokenizer lies beside its weights: 0 ends a text, 1 is a visual token, 2 a query token, 3 ends an answer, and
    the dot is the byte that queries start from.
    """
    return SaccadeConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=192,
            intermediate_size=576,
            num_hidden_layers=6,
            num_attention_heads=6,
            image_size=90,
            patch_size=10,
            vision_use_head=False,
        ),
        text_config=PhiConfig(
            **NANO_DECODER,
            max_position_embeddings=1024,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
        ),
        vision=VisionFeatureConfig(layer=-1),
        compressor=SapConfig(window=3, dropout=0.0),
        projector=ProjectorConfig(hidden_sizes=(192,)),
        query=QueryConfig(num_queries=9, hidden_size=96, num_heads=6, before_layers=(2,), init_token_id=17),
        image=ImageConfig(side=90),
        prompt=PromptConfig(query_token="<learnable>", num_queries=9),
        image_token_id=1,
        query_token_id=2,
        lm_head_bias=True,
    )


def nano_hd() -> SaccadeConfig:
    """Nano with its picture as a thumbnail and four tiles at 180, 45 visual tokens; else as `nano`."""
    config = nano()
    config.image = ImageConfig(side=90, **FLASHSLOTH_TILES)
    return config


def nano_flashvl_static() -> SaccadeConfig:
    """Flash-VL's shape at nano's size, on nano's tower and tokenizer: pixel shuffle to 9 tokens, a Qwen2 decoder.

    The adapter is twice as wide as the decoder. The paper's is 4.7 times as wide, which would outweigh this one. The
    output head is the table of embeddings, where the releases have one of its own.
    """
    shared = nano()
    return SaccadeConfig(
        vision_config=shared.vision_config,
        text_config=Qwen2Config(**NANO_FLASHVL_DECODER),
        vision=shared.vision,
        compressor=PixelShuffleConfig(window=3),
        projector=ProjectorConfig(hidden_sizes=(384, 384), input_norm=True),
        image=shared.image,
        image_token_id=shared.image_token_id,
        tie_word_embeddings=True,
    )


def nano_flashvl_dynamic() -> SaccadeConfig:
    """`nano_flashvl_static` on a thumbnail and up to four tiles of 90 pixels, 9 tokens each."""
    config = nano_flashvl_static()
    config.image = ImageConfig(side=90, layout="dynamic", max_tiles=4)
    return config


def nano_flashvl_overlapped() -> SaccadeConfig:
    """`nano_flashvl_dynamic` with the overlapping tiles of `nano_flashvl_iss`, of which no token is dropped."""
    return overlapping(nano_flashvl_dynamic(), patches=1)


def nano_flashvl_iss() -> SaccadeConfig:
    """`nano_flashvl_dynamic` with implicit semantic stitching: one patch on each side is dropped, 49 tokens a view."""
    config = nano_flashvl_overlapped()
    config.compressor = CropConfig(margin=1)
    return config
