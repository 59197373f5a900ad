"""A model that fits in a test: random weights, odd sizes, and a tokenizer whose every ordinary token is one byte."""

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PhiConfig, PreTrainedTokenizerFast, SiglipVisionConfig

from saccade.config import ImageConfig, ProjectorConfig, PromptConfig, QueryConfig, SaccadeConfig, SapConfig
from saccade.image.processor import build_processor
from saccade.model import SaccadeForConditionalGeneration
from saccade.vlm import VLM

SPECIALS = ("<image>", "<learnable>", "</s>")


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Ids 0..255 are bytes, then the special tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: n for n, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False)
    fast.add_special_tokens({"additional_special_tokens": list(SPECIALS)})
    fast.eos_token, fast.pad_token = "</s>", "</s>"
    return fast


def tiny_config(**changes: object) -> SaccadeConfig:
    fields = {
        "vision_config": SiglipVisionConfig(
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=3,
            image_size=24,
            patch_size=4,
            vision_use_head=False,
        ),
        "text_config": PhiConfig(
            vocab_size=272,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=400,
            eos_token_id=258,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
        ),
        "compressor": SapConfig(window=2),
        "projector": ProjectorConfig(hidden_sizes=(32,)),
        "query": QueryConfig(num_queries=2, hidden_size=12, num_heads=2, before_layers=(1,)),
        "image": ImageConfig(side=24),
        "prompt": PromptConfig(system="Be brief. ", query_token="<learnable>", num_queries=2),
        "image_token_id": 256,
        "query_token_id": 257,
        "lm_head_bias": True,
    }
    return SaccadeConfig(**(fields | changes))


def tiny_vlm(seed: int = 0, **changes: object) -> VLM:
    """A model whose greedy answers depend on question and picture, since all its weights are large."""
    torch.manual_seed(seed)
    config = tiny_config(**changes)
    model = SaccadeForConditionalGeneration(config)
    torch.manual_seed(seed)  # whatever building has drawn
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=weight.shape[-1] ** -0.5)
        model.get_input_embeddings().weight.normal_()
    return VLM(model, build_processor(config, byte_tokenizer()), name="tiny")


def count_views(vlm: VLM, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that gets the number of views of every call of the tower, as calls happen."""
    calls: list[int] = []
    encode_views = vlm.model.model.encode_views

    def counting(pixels: torch.Tensor) -> torch.Tensor:
        calls.append(len(pixels))
        return encode_views(pixels)

    monkeypatch.setattr(vlm.model.model, "encode_views", counting)
    return calls


def picture(seed: int, width: int = 31, height: int = 20) -> Image.Image:
    """Noise, so that no two pictures look alike to a random tower."""
    noise = torch.randint(256, (height, width, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return Image.fromarray(noise.numpy())
