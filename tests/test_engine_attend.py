"""Attention on a CPU: of few queries and of many, by kernels where there are some, against the library in float64."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from kernel_checks import ROUNDING, off
from saccade.engine.cpu import LowPrecisionWeights, build
from saccade.errors import ConfigError


def attention_inputs(
    rows: int, dim: int, length: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, and the keys and values of two of three slots, longer than what is read; both see something."""
    generator = torch.Generator().manual_seed(rows * dim + length)
    query = torch.randn(2, 3, rows, dim, generator=generator).to(dtype)
    keys, values = (torch.randn(3, 3, length + 5, dim, generator=generator).to(dtype) for _ in range(2))
    seen = torch.rand(2, 1, 1, length, generator=generator) < 0.7
    seen[..., -1] = True
    return query, keys[1:, :, :length], values[1:, :, :length], seen


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "dim", "length"), [(1, 1, 1), (6, 33, 9), (2, 128, 300), (1, 80, 17), (16, 7, 64)])
def test_attention_of_few_queries_equals_float64(rows: int, dim: int, length: int, dtype: torch.dtype) -> None:
    query, key, value, seen = attention_inputs(rows, dim, length, dtype)
    exact = F.scaled_dot_product_attention(query.double(), key.double(), value.double(), seen, scale=0.3)
    spread = query.transpose(1, 2).contiguous().transpose(1, 2)
    for given in (query, spread):
        found = torch.ops.saccade.attend(given, key, value, seen, 0.3)
        assert found.dtype == dtype
        assert off(found, exact) < (ROUNDING if dtype == torch.float32 else 2**-8)


def test_attention_does_not_read_what_is_not_seen_and_tells_what_is_broken() -> None:
    query, key, value, seen = attention_inputs(2, 16, 40, torch.float32)
    expected = torch.ops.saccade.attend(query, key, value, seen, 0.3)
    hidden = ~seen.expand(-1, 3, -1, -1).transpose(2, 3)
    broken = key.masked_fill(hidden, torch.nan), value.masked_fill(hidden, torch.inf)
    found = torch.ops.saccade.attend(query, *broken, seen, 0.3)
    assert build.load_kernels().attend is None or torch.equal(found, expected)
    assert torch.ops.saccade.attend(query, *broken, torch.ones_like(seen), 0.3).isnan().any(dim=-1).all()
    assert torch.ops.saccade.attend(query, key, value, torch.zeros_like(seen), 0.3).eq(0).all()


def test_the_greatest_of_very_large_scores_is_found() -> None:
    query, key = torch.randn(1, 2, 40, 64) * 1e5, torch.randn(1, 2, 50, 64) * 1e4
    query, key, value = (each.bfloat16() for each in (query, key, torch.randn(1, 2, 50, 64)))
    exact = F.scaled_dot_product_attention(query.double(), key.double(), value.double(), scale=0.37)
    assert off(torch.ops.saccade.attend(query, key, value, None, 0.37), exact) < 2**-7


def test_attention_that_the_kernel_does_not_know_goes_to_the_library() -> None:
    query, key, value, seen = attention_inputs(4, 16, 40, torch.float32)
    floats = torch.zeros(2, 1, 1, 40).masked_fill(~seen, -torch.inf)
    for given in (
        (query, key, value, seen.expand(-1, -1, 4, -1)),
        (query, key, value, floats),
        (query, key, value, seen[:1]),
        (query, key, value, None, 0.0, True),
        (query[0], key[0], value[0]),
    ):
        exact = F.scaled_dot_product_attention(*given)
        with LowPrecisionWeights():
            assert off(F.scaled_dot_product_attention(*given), exact) < ROUNDING
    options: dict[str, Any]
    for options in ({"scale": 0.1, "enable_gqa": True}, {"attn_mask": seen, "enable_gqa": True}):
        exact = F.scaled_dot_product_attention(query, key[:, :1], value[:, :1], **options)
        with LowPrecisionWeights():
            assert off(F.scaled_dot_product_attention(query, key[:, :1], value[:, :1], **options), exact) < ROUNDING


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("rows", "length", "dim"), [(17, 1, 2), (24, 24, 32), (33, 47, 72), (50, 96, 80), (97, 49, 130), (20, 20, 7)]
)
def test_attention_of_many_queries_to_everything_equals_float64(rows: int, length: int, dim: int) -> None:
    generator = torch.Generator().manual_seed(rows * dim)
    query = torch.randn(2, rows, 3, dim, generator=generator).bfloat16().transpose(1, 2)
    key, value = (torch.randn(2, length, 6, dim, generator=generator).bfloat16()[:, :, ::2] for _ in range(2))
    key, value = key.transpose(1, 2), value.transpose(1, 2)
    exact = F.scaled_dot_product_attention(query.double(), key.double(), value.double(), scale=0.4)
    for given in (query, query.contiguous()):
        found = torch.ops.saccade.attend(given, key, value, None, 0.4)
        assert found.dtype == torch.bfloat16
        assert found.transpose(1, 2).is_contiguous()
        assert off(found, exact) < 2**-7
    far = query * 60  # weights of which nearly all are nothing
    exact = F.scaled_dot_product_attention(far.double(), key.double(), value.double(), scale=0.4)
    assert off(torch.ops.saccade.attend(far, key, value, None, 0.4), exact) < 2**-7
    far[0, 0, 5] = torch.nan
    broken = torch.ops.saccade.attend(far, key, value, None, 0.4).isnan()
    assert broken[0, 0, 5].all()
    assert broken.sum() == dim


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("rows", "before"), [(5, 0), (9, 40), (40, 0), (33, 70)])
def test_attention_of_many_queries_to_what_they_see_equals_float64(rows: int, before: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    query = torch.randn(2, 3, rows, 24, generator=generator).bfloat16()
    length = before + rows
    key, value = (torch.randn(2, 3, length + 6, 24, generator=generator).bfloat16()[:, :, :length] for _ in range(2))
    causal = torch.arange(length) <= torch.arange(before, length)[:, None]
    scattered = torch.rand(2, 1, rows, length, generator=generator) < 0.3
    wide = torch.rand(2, 1, 1, 2 * length, generator=generator)[..., :length] < 0.5
    for seen in (causal.expand(2, 1, -1, -1), scattered & causal, wide):
        exact = F.scaled_dot_product_attention(query.double(), key.double(), value.double(), seen, scale=0.3)
        assert off(torch.ops.saccade.attend(query, key, value, seen, 0.3), exact) < 2**-7
    nobody = torch.zeros(2, 1, rows, length, dtype=torch.bool)
    assert torch.ops.saccade.attend(query, key, value, nobody, 0.3).eq(0).all()


def test_the_operator_lays_its_result_out_as_compiled_code_expects() -> None:
    for rows in (4, 20):
        query, key, value = (torch.randn(2, 3, rows, 8) for _ in range(3))
        for each in (query, query.bfloat16()):
            arguments = (each, key.to(each), value.to(each), None, 0.3)
            torch.library.opcheck(torch.ops.saccade.attend.default, arguments, test_utils="test_faketensor")


def test_attention_that_learns_goes_to_the_library() -> None:
    query, key, value, seen = attention_inputs(4, 16, 40, torch.float32)
    query.requires_grad_()
    with LowPrecisionWeights(torch.bfloat16):
        F.scaled_dot_product_attention(query, key, value, seen).sum().backward()
    assert query.grad is not None
    with pytest.raises(ConfigError, match="inference_mode"):
        torch.ops.saccade.attend(query, key, value, None, 0.3)
