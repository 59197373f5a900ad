"""The peers at full size, as data: built from transformers' own classes, or from ours where only theirs is missing.

Sizes as published; placeholder ids stand at the end of each vocabulary. A small copy of each has the same parts, the
same pictures and the same number of visual tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import (
    CLIPVisionConfig,
    InternVLConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaOnevisionConfig,
    PhiConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen2VLConfig,
    SiglipVisionConfig,
)

from saccade.bench.feeds import AnyresFeed, OwnFeed, PatchFeed, SquareFeed, TileFeed
from saccade.bench.skeleton import random_model
from saccade.bench.subjects import Feed, Generating
from saccade.config import (
    IdentityConfig,
    ImageConfig,
    LdpV2Config,
    ProjectorConfig,
    SaccadeConfig,
    VisionFeatureConfig,
)
from saccade.errors import ConfigError

CLIP_COLORS: dict[str, Any] = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
}
IMAGENET_COLORS: dict[str, Any] = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


@dataclass(frozen=True)
class Stack:
    """The sizes of a transformer.

    Attributes:
        layers: Layers.
        heads: Attention heads.
        head_dim: Width of a head.
        mlp: Width inside a layer's multilayer perceptron.
        kv_heads: Heads of keys and values; as many as `heads` where 0.
        vocab: Entries of a decoder's vocabulary.
    """

    layers: int
    heads: int
    head_dim: int
    mlp: int
    kv_heads: int = 0
    vocab: int = 0

    def fields(self) -> dict[str, Any]:
        """Return the fields of a tower's configuration."""
        return {
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "hidden_size": self.heads * self.head_dim,
            "intermediate_size": self.mlp,
        }

    def decoder_fields(self) -> dict[str, Any]:
        """Return the fields of a decoder's configuration."""
        return self.fields() | {
            "vocab_size": self.vocab,
            "num_key_value_heads": self.kv_heads or self.heads,
            # No answer ends early, and the library's defaults lie outside a short vocabulary.
            "bos_token_id": None,
            "eos_token_id": None,
        }

    def small(self) -> Stack:
        """Return two layers of two heads each, with a short vocabulary."""
        heads, mlp = 2, 4 * self.head_dim
        kv_heads, vocab = min(self.kv_heads, 1), min(self.vocab, 512)
        return replace(self, layers=2, heads=heads, mlp=mlp, kv_heads=kv_heads, vocab=vocab)


SIGLIP = Stack(layers=27, heads=16, head_dim=72, mlp=4304)
CLIP = Stack(layers=24, heads=16, head_dim=64, mlp=4096)
INTERN_VIT = Stack(layers=24, heads=16, head_dim=64, mlp=4096)
QWEN2_VIT = Stack(layers=32, heads=16, head_dim=80, mlp=5120)
VICUNA_7B = Stack(layers=32, heads=32, head_dim=128, mlp=11008, vocab=32064)
QWEN2 = Stack(layers=28, heads=12, head_dim=128, mlp=8960, kv_heads=2, vocab=151936)
INTERNLM2 = Stack(layers=24, heads=16, head_dim=128, mlp=8192, kv_heads=8, vocab=92553)
PHI_2 = Stack(layers=32, heads=32, head_dim=80, mlp=10240, vocab=51200)
MOBILE_LLAMA = Stack(layers=24, heads=16, head_dim=128, mlp=5632, vocab=32000)
MOBILE_LLAMA_3B = Stack(layers=32, heads=32, head_dim=80, mlp=6912, vocab=32000)


@dataclass(frozen=True)
class Peer:
    """A model to compare with.

    Attributes:
        tower: Sizes of its vision tower.
        decoder: Sizes of its decoder.
        config: Makes its configuration from both.
        feed: Makes what prepares its inputs from that.
    """

    tower: Stack
    decoder: Stack
    config: Callable[[Stack, Stack], PreTrainedConfig]
    feed: Callable[[Any], Feed]

    def open(self, name: str, device: str, dtype: torch.dtype, seed: int, *, small: bool = False) -> Generating:
        """Build it with random weights, behind plain `generate`; `small` builds its small copy."""
        config = self.configuration(small=small)
        return Generating(name, random_model(config, device, dtype, seed), self.feed(config))

    def configuration(self, *, small: bool = False) -> PreTrainedConfig:
        """Return its configuration, or that of its small copy."""
        stacks = (self.tower.small(), self.decoder.small()) if small else (self.tower, self.decoder)
        return self.config(*stacks)


def _llava(tower: Stack, decoder: Stack) -> PreTrainedConfig:
    return LlavaConfig(
        vision_config=CLIPVisionConfig(**tower.fields(), image_size=336, patch_size=14),
        text_config=LlamaConfig(**decoder.decoder_fields(), max_position_embeddings=4096, rms_norm_eps=1e-5),
        image_token_index=decoder.vocab - 1,
        image_seq_length=576,
        vision_feature_layer=-2,
        tie_word_embeddings=False,
    )


def _clip_feed(config: PreTrainedConfig) -> Feed:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    side = config.vision_config.image_size
    crop = {"height": side, "width": side}
    return SquareFeed(config, CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=crop))


def _qwen2_vl(tower: Stack, decoder: Stack) -> PreTrainedConfig:
    vocab, head = decoder.vocab, decoder.head_dim // 2
    mrope = [head // 4, 3 * head // 8, 3 * head // 8]  # time, height, width
    return Qwen2VLConfig(
        vision_config={
            "depth": tower.layers,
            "embed_dim": tower.heads * tower.head_dim,
            "num_heads": tower.heads,
            "mlp_ratio": tower.mlp // (tower.heads * tower.head_dim),
            "hidden_size": decoder.heads * decoder.head_dim,
        },
        text_config=decoder.decoder_fields()
        | {
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": mrope},
        },
        tie_word_embeddings=True,
        image_token_id=vocab - 1,
        video_token_id=vocab - 2,
        vision_start_token_id=vocab - 3,
        vision_end_token_id=vocab - 4,
    )


def _qwen2_vl_feed(config: PreTrainedConfig) -> Feed:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return PatchFeed(config, Qwen2VLImageProcessorPil())


def _internvl2(tower: Stack, decoder: Stack) -> PreTrainedConfig:
    return InternVLConfig(
        vision_config=tower.fields() | {"attention_bias": True, "image_size": [448, 448], "patch_size": [14, 14]},
        text_config=LlamaConfig(**decoder.decoder_fields(), max_position_embeddings=32768, rms_norm_eps=1e-5),
        image_token_id=decoder.vocab - 1,
        image_seq_length=256,
        tie_word_embeddings=False,
    )


def _internvl2_feed(most: int) -> Callable[[PreTrainedConfig], Feed]:
    def feed(config: PreTrainedConfig) -> Feed:
        from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

        height, width = config.vision_config.image_size
        images = GotOcr2ImageProcessorPil(
            size={"height": height, "width": width}, crop_to_patches=True, max_patches=most, **IMAGENET_COLORS
        )
        return TileFeed(config, images)

    return feed


def _imp(tower: Stack, decoder: Stack) -> PreTrainedConfig:
    return SaccadeConfig(
        vision_config=SiglipVisionConfig(**tower.fields(), image_size=384, patch_size=14, vision_use_head=False),
        text_config=PhiConfig(
            **decoder.decoder_fields(),
            max_position_embeddings=3072,
            rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.4},
        ),
        vision=VisionFeatureConfig(layer=-2, post_norm=False),
        compressor=IdentityConfig(),
        projector=ProjectorConfig(hidden_sizes=(decoder.heads * decoder.head_dim,)),
        image=ImageConfig(side=384),
        image_token_id=decoder.vocab - 1,
        lm_head_bias=True,
    )


def _mobilevlm_v2(tower: Stack, decoder: Stack) -> PreTrainedConfig:
    return SaccadeConfig(
        vision_config=CLIPVisionConfig(**tower.fields(), image_size=336, patch_size=14),
        text_config=LlamaConfig(**decoder.decoder_fields(), max_position_embeddings=2048, rms_norm_eps=1e-6),
        vision=VisionFeatureConfig(layer=-2, num_prefix_tokens=1),
        compressor=LdpV2Config(hidden_size=decoder.heads * decoder.head_dim),
        projector=ProjectorConfig(hidden_sizes=None),
        image=ImageConfig(side=336, **CLIP_COLORS),
        image_token_id=decoder.vocab - 1,
    )


def _aquila_vl(tower: Stack, decoder: Stack) -> PreTrainedConfig:
    side, tiles = 384, 6
    # One layer fewer than published: the last of them does not reach the features.
    fields = tower.fields() | {"num_hidden_layers": tower.layers - 1}
    return LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**fields, image_size=side, patch_size=14, vision_use_head=False),
        text_config=Qwen2Config(**decoder.decoder_fields(), max_position_embeddings=32768, rms_norm_eps=1e-6),
        image_token_index=decoder.vocab - 1,
        video_token_index=decoder.vocab - 2,
        image_grid_pinpoints=[[side * y, side * x] for y in range(1, tiles + 1) for x in range(1, tiles + 1)],
        vision_aspect_ratio="anyres_max_9",
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=True,
    )


def _aquila_vl_feed(config: PreTrainedConfig) -> Feed:
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

    return AnyresFeed(config, LlavaOnevisionImageProcessorPil(image_grid_pinpoints=config.image_grid_pinpoints))


PEERS: dict[str, Peer] = {
    "llava-1.5-7b": Peer(CLIP, VICUNA_7B, _llava, _clip_feed),
    "imp-v1-3b": Peer(SIGLIP, PHI_2, _imp, OwnFeed),
    "qwen2-vl-2b": Peer(QWEN2_VIT, QWEN2, _qwen2_vl, _qwen2_vl_feed),
    # The shape of InternVL2.5-2B too, with up to 12 tiles as both are configured.
    "internvl2-2b": Peer(INTERN_VIT, INTERNLM2, _internvl2, _internvl2_feed(12)),
    # With up to 6 tiles, as its evaluation scripts are run and as the averages of FlashSloth's Table 1 show.
    "internvl2-2b-6-tiles": Peer(INTERN_VIT, INTERNLM2, _internvl2, _internvl2_feed(6)),
    "mobilevlm-v2-1.7b": Peer(CLIP, MOBILE_LLAMA, _mobilevlm_v2, OwnFeed),
    "mobilevlm-v2-3b": Peer(CLIP, MOBILE_LLAMA_3B, _mobilevlm_v2, OwnFeed),
    "aquila-vl-2b": Peer(SIGLIP, QWEN2, _aquila_vl, _aquila_vl_feed),
}


def peer(name: str) -> Peer:
    """Return a peer by name; raises ConfigError when there is none of that name."""
    if name not in PEERS:
        raise ConfigError(f"there is no peer {name!r}: choose one of {', '.join(PEERS)}")
    return PEERS[name]
