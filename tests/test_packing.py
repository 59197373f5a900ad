"""Packed rows train what padded rows train; rows fill well; a batch without pictures still reaches every module."""

import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from transformers.modeling_flash_attention_utils import prepare_fa_kwargs_from_position_ids

import chats
import small
from saccade.config import SaccadeConfig
from saccade.data.collate import Sample, collate
from saccade.data.pack import collate_packed, pack
from saccade.errors import DataError, PlaceholderMismatchError
from saccade.model import SaccadeForConditionalGeneration
from saccade.prompt.encode import IGNORE, Encoded
from saccade.roles import IMAGE, TEXT

FAMILIES = {"queries": small.config(), "without": small.shuffled()}
every_family = pytest.mark.parametrize("config", FAMILIES.values(), ids=FAMILIES)
LAYOUTS = {
    "one row": [[3, 0, 1, 2, 4]],
    "two rows, one of them padded": [[0, 1, 4], [2, 3]],
    "each alone": [[0], [1], [2], [3], [4]],
}


def sample(ids: list[int], roles: list[int], config: SaccadeConfig, seed: int) -> Sample:
    labels = [i if role == TEXT else IGNORE for i, role in zip(ids, roles, strict=True)]
    side, views = config.image.side, ids.count(small.IMAGE_ID) // config.tokens_per_view
    pixels = np.random.default_rng(seed).integers(0, 256, (views, 3, side, side), dtype=np.uint8)
    return Sample(Encoded(ids, labels, roles), pixels if views else None)


def samples(config: SaccadeConfig) -> list[Sample]:
    """One turn, two turns, text alone, tiles, and several pictures, in different turns where there are queries."""
    rows = [*chats.single_views(config)[:3], chats.chat(3, views=5, of=config), chats.chat(4, views=2, of=config)]
    if config.query is not None:
        rows[4] = (small.rows()[0].ids, small.rows()[0].roles)
    return [sample(*row, config, seed) for seed, row in enumerate(rows)]


def settings(config: SaccadeConfig) -> dict:
    return {
        "image": config.image,
        "pad_id": small.PAD_ID,
        "tokens_per_view": config.tokens_per_view,
        "num_queries": config.prompt.num_queries,
    }


def packed(config: SaccadeConfig, layout: list[list[int]]) -> dict:
    made = samples(config)
    return collate_packed([[made[index] for index in row] for row in layout], **settings(config))


def gradients(model: SaccadeForConditionalGeneration, inputs: dict) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = model(**inputs).loss
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Compare gradients by the largest of each tensor; those of keys' biases are zero up to rounding."""
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        tolerance = 1e-5 * gradient.abs().max().item() + 1e-8
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=tolerance, msg=name)


@pytest.fixture(scope="module", params=FAMILIES.values(), ids=FAMILIES)
def family(request: pytest.FixtureRequest) -> tuple:
    """A configuration, its model, and loss and gradients of the samples in padded rows."""
    config, model = request.param, chats.build(request.param)
    return config, model, *gradients(model, collate(samples(config), labels=True, **settings(config)))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_packed_rows_train_what_padded_rows_do(family: tuple, layout: list[list[int]], attention: str) -> None:
    config, model, loss, expected = family
    model.set_attn_implementation(attention)
    found_loss, found = gradients(model, packed(config, layout))
    torch.testing.assert_close(found_loss, loss, rtol=1e-5, atol=1e-5)
    assert_same(found, expected)


def test_samples_that_share_views_share_them_in_a_packed_row() -> None:
    config = FAMILIES["queries"]
    first = samples(config)[0]
    second = Sample(sample(*chats.chat(5), config, 0).encoded, first.views)
    batch = collate_packed([[first, second], [second]], **settings(config))
    assert len(batch["pixel_values"]) == 1
    assert batch["view_index"].tolist() == [[0, 0], [0, -1]]
    model, loss = chats.build(config), collate([first, second, second], labels=True, **settings(config))
    torch.testing.assert_close(model(**batch).loss, model(**loss).loss, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@every_family
def test_a_packed_batch_compiles_whole(config: SaccadeConfig) -> None:
    model, inputs = chats.build(config), packed(config, LAYOUTS["two rows, one of them padded"])
    del inputs["labels"]
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(**inputs).logits, model(**inputs).logits, rtol=1e-4, atol=1e-4)


def test_flash_attention_is_told_the_boundaries_that_the_positions_tell() -> None:
    batch = packed(FAMILIES["queries"], LAYOUTS["two rows, one of them padded"])
    (bounds, _), (longest, _) = prepare_fa_kwargs_from_position_ids(batch["position_ids"])
    assert len(bounds) == 1 + 5 + 1
    for side in "qk":
        assert torch.equal(batch[f"cu_seq_lens_{side}"], bounds)
        assert batch[f"cu_seq_lens_{side}"].dtype == torch.int32
        assert batch[f"max_length_{side}"] == longest


def test_rows_fill_well_and_keep_the_order_of_the_data() -> None:
    lengths = np.random.default_rng(0).integers(20, 700, 3000).tolist()
    rows = pack(lengths, 2048, window=1000)
    assert sorted(index for row in rows for index in row) == list(range(3000))
    assert max(sum(lengths[index] for index in row) for row in rows) <= 2048
    assert sum(lengths) / (len(rows) * 2048) > 0.98
    assert rows == pack(lengths, 2048, window=1000)
    assert all(row == sorted(row) and row[-1] // 1000 == row[0] // 1000 for row in rows)
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    assert pack([5, 5, 5], 5) == [[0], [1], [2]]
    assert pack([], 5) == []


def test_what_cannot_be_packed_is_refused() -> None:
    config = FAMILIES["queries"]
    with pytest.raises(DataError, match="sample 2 has 9 tokens, but a row holds 8"):
        pack([3, 8, 9], 8)
    for rows in ([], [[]]):
        with pytest.raises(DataError, match="at least one"):
            collate_packed(rows, **settings(config))
    good = samples(config)[0]
    blind = Sample(good.encoded)
    with pytest.raises(PlaceholderMismatchError, match="sample 1 of row 0 holds 0 views"):
        collate_packed([[good, blind]], **settings(config))
    untrained = Sample(Encoded([1, 2], [1, IGNORE], [TEXT, TEXT]))
    with pytest.raises(DataError, match="sample 0 of row 1 has no trained token"):
        collate_packed([[good], [untrained]], **settings(config))


def training(config: SaccadeConfig) -> SaccadeForConditionalGeneration:
    """A model in training, without dropout."""
    model = chats.build(config).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def without_queries(config: SaccadeConfig) -> tuple[list[int], list[int]]:
    """A picture and a text that no query reads."""
    tokens = config.tokens_per_view
    return [3, *[small.IMAGE_ID] * tokens, 11, 12, 7], [TEXT, *[IMAGE] * tokens, TEXT, TEXT, TEXT]


FORMS = {
    "text": ("queries", chats.TEXT_ONLY),
    "text, no queries": ("without", chats.TEXT_ONLY),
    "queries that see no picture": ("queries", (small.rows()[1].ids, small.rows()[1].roles)),
    "a picture that no query sees": ("queries", without_queries(FAMILIES["queries"])),
}


@pytest.mark.parametrize(("family", "row"), FORMS.values(), ids=FORMS)
def test_every_parameter_gets_a_gradient_whatever_the_rows_hold(family: str, row: tuple) -> None:
    config = FAMILIES[family]
    inputs, model = collate([sample(*row, config, 0)], labels=True, **settings(config)), training(config)
    loss, found = gradients(model, inputs)
    expected_loss, expected = gradients(model.eval(), inputs)
    assert torch.equal(loss, expected_loss)
    assert expected.keys() < found.keys() == {name for name, _ in model.named_parameters()}
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected.get(name, torch.zeros_like(gradient)), msg=name)


SHARED = [[0, 1], [2]]  # samples of each process: the second one sees no picture


def share(rank: int, folder: str, way: str) -> None:
    """One of two processes: its loss and, from the first one, the gradients of both together."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/{way}", rank=rank, world_size=2, timeout=datetime.timedelta(seconds=60)
    )
    config = FAMILIES["queries"]
    model = training(config)
    inputs = collate([samples(config)[index] for index in SHARED[rank]], labels=True, **settings(config))
    if way == "ddp":
        wrapped = DistributedDataParallel(model)  # it reduces as long as it is referred to
        wrapped(**inputs).loss.backward()
    else:
        for unit in (*model.model.vision_tower.encoder.layers, *model.model.language_model.layers):
            fully_shard(unit)
        fully_shard(model)
        model(**inputs, logits_to_keep=1).loss.backward()
    whole = {name: getattr(p.grad, "full_tensor", lambda p=p: p.grad)() for name, p in model.named_parameters()}
    if rank == 0:
        torch.save(whole, Path(folder) / f"{way}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_a_process_whose_rows_hold_no_picture_keeps_step(way: str, tmp_path: Path) -> None:
    torch.multiprocessing.spawn(share, (str(tmp_path), way), nprocs=2)
    found = torch.load(tmp_path / f"{way}.pt")
    config = FAMILIES["queries"]
    model, made = training(config), samples(config)
    alone = [
        gradients(model, collate([made[index] for index in indices], labels=True, **settings(config)))[1]
        for indices in SHARED
    ]
    assert_same(found, {name: (gradient + alone[1][name]) / 2 for name, gradient in alone[0].items()})
