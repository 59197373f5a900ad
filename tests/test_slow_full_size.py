"""The published size really runs: all parameters allocated, one picture and one question, on the CPU."""

import resource

import pytest
import torch
from transformers.initialization import no_init_weights

import small
from saccade import presets
from saccade.engine.cpu import choose_linear
from saccade.image import normalize, to_views
from saccade.model import SaccadeForConditionalGeneration
from saccade.roles import IMAGE, TEXT, instruction_role, query_role

GIB = 1024**3
BLOCK = 1_000_003


def random_model(preset: str) -> SaccadeForConditionalGeneration:
    """A preset with random bfloat16 weights: one block of noise, repeated, because drawing billions takes minutes."""
    with no_init_weights():
        model = SaccadeForConditionalGeneration._from_config(presets.preset(preset), dtype=torch.bfloat16)
    noise = (torch.randn(BLOCK, generator=torch.Generator().manual_seed(0)) * 0.02).bfloat16()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                parameter.fill_(1)
                continue
            for piece in parameter.view(-1).split(BLOCK):
                piece.copy_(noise[: len(piece)])
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "visual_tokens"),
    [
        ("flashsloth", 81 + 9),
        ("flashsloth_hd", 5 * 81 + 9),
        ("flashvl_static", 256),
        ("flashvl_dynamic", 3 * 256),
        ("flashvl_iss", 3 * 576),
    ],
)
@torch.no_grad()
def test_one_forward_pass_at_the_published_size(preset: str, visual_tokens: int) -> None:
    model = random_model(preset)
    config = model.config
    pixels = normalize(to_views(small.picture(640, 427), config.image), config.image)
    question, header = [1024, 318, 287, 262, 4286, 30], [24994, 8808, 8643, 25]
    parts = [
        ([11] * 32, TEXT),
        ([config.image_token_id] * (len(pixels) * config.tokens_per_view), IMAGE),
        ([198], TEXT),
        (question, instruction_role(0)),
        ([config.query_token_id] * config.prompt.num_queries, query_role(0)),
        (header, TEXT),
    ]
    ids = torch.tensor([[token for tokens, _ in parts for token in tokens]])
    roles = torch.tensor([[role for tokens, role in parts for _ in tokens]])
    with choose_linear(torch.bfloat16, torch.device("cpu")).mode():  # minutes faster where there is no matrix unit
        logits = model(input_ids=ids, mm_token_type_ids=roles, pixel_values=torch.from_numpy(pixels)).logits
    visual = (roles == IMAGE).sum() + (roles == query_role(0)).sum()
    assert int(visual) == visual_tokens
    assert logits.shape == (1, visual_tokens + 32 + 1 + len(question) + len(header), config.text_config.vocab_size)
    assert bool(logits.isfinite().all())
    assert logits.float().std() > 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < 24 * GIB
