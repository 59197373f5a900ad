"""The model's invariants, at an odd geometry and over several decoders; greedy ids must agree exactly in float32."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import PhiConfig, Qwen2Config, Qwen3Config

import small
from saccade import presets
from saccade.config import SaccadeConfig
from saccade.errors import ConfigError, PlaceholderMismatchError, PromptError
from saccade.model import SaccadeForConditionalGeneration
from saccade.model.layout import query_positions_of, view_index_of
from saccade.roles import IMAGE, TEXT, instruction_role, query_role
from saccade.train.stages import Group
from saccade.train.trainer import assign_groups

NEW = 6
COMMON = {
    "vocab_size": small.VOCAB, "hidden_size": 20, "intermediate_size": 22, "num_hidden_layers": 3,
    "num_attention_heads": 2, "max_position_embeddings": 256, "eos_token_id": None, "pad_token_id": 0,
}  # fmt: skip
DECODERS = {
    "phi": PhiConfig(
        **COMMON, rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.4}
    ),
    "qwen2": Qwen2Config(**COMMON, num_key_value_heads=1),
    "qwen3": Qwen3Config(**COMMON, num_key_value_heads=1, head_dim=10),
}


def build(decoder: str = "phi", **query: object) -> SaccadeForConditionalGeneration:
    fields = small.config(**query).to_dict()
    fields["text_config"] = DECODERS[decoder]
    torch.manual_seed(1)
    fields.pop("model_type")
    model = SaccadeForConditionalGeneration(SaccadeConfig(**fields)).eval()
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3)
    return model


def chat(question: int, *, turns: int = 1, views: int = 1) -> tuple[list[int], list[int]]:
    """Ids and roles of a conversation whose pictures all stand in its first turn."""
    ids, roles = [3, 4], [TEXT, TEXT]
    ids += [small.IMAGE_ID] * (views * small.TOKENS_PER_VIEW)
    roles += [IMAGE] * (views * small.TOKENS_PER_VIEW)
    for turn in range(turns):
        ids += [10 + turn + n for n in range(question)] + [small.QUERY_ID] * small.NUM_QUERIES + [7, 8]
        roles += [instruction_role(turn)] * question + [query_role(turn)] * small.NUM_QUERIES + [TEXT, TEXT]
    return ids, roles


TEXT_ONLY = ([3, 4, 11, 12, 13, 7, 8], [TEXT] * 7)


def batch(rows: list[tuple[list[int], list[int]]], side: str = "left") -> dict[str, torch.Tensor]:
    longest = max(len(ids) for ids, _ in rows)

    def pad(row: list[int], value: int) -> list[int]:
        fill = [value] * (longest - len(row))
        return fill + row if side == "left" else row + fill

    views = sum(ids.count(small.IMAGE_ID) for ids, _ in rows) // small.TOKENS_PER_VIEW
    generator = torch.Generator().manual_seed(2)
    inputs = {
        "input_ids": torch.tensor([pad(ids, small.PAD_ID) for ids, _ in rows]),
        "mm_token_type_ids": torch.tensor([pad(roles, TEXT) for _, roles in rows]),
        "attention_mask": torch.tensor([pad([1] * len(ids), 0) for ids, _ in rows]),
    }
    if views:
        inputs["pixel_values"] = torch.randn(views, 3, 24, 24, generator=generator)
    return inputs


def placed(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same inputs with their placements given, as the collator gives them."""
    mask = inputs["input_ids"] == small.IMAGE_ID
    return inputs | {
        "view_index": view_index_of(mask, small.TOKENS_PER_VIEW, inputs["pixel_values"].shape[0]),
        "query_positions": query_positions_of(inputs["mm_token_type_ids"]),
    }


def generate(model, inputs, **options) -> torch.Tensor:
    output = model.generate(**inputs, max_new_tokens=NEW, do_sample=False, **options)
    return output[:, inputs["input_ids"].shape[1] :]


ROWS = [chat(3), chat(7, turns=2), TEXT_ONLY, chat(4, views=2)]
IN_TILES = [chat(3, views=5), TEXT_ONLY, chat(7, turns=2, views=10)]
several_views = pytest.mark.parametrize("rows", [ROWS, IN_TILES], ids=["single", "tiles"])


@several_views
@pytest.mark.parametrize("decoder", DECODERS)
def test_batched_equals_single(decoder, rows):
    model = build(decoder)
    together = batch(rows)
    answers, at = generate(model, together), 0
    for row, prompt in enumerate(rows):
        alone = batch([prompt])
        views = alone.pop("pixel_values").shape[0] if "pixel_values" in alone else 0
        if views:
            alone["pixel_values"] = together["pixel_values"][at : at + views]
        at += views
        assert generate(model, alone)[0].tolist() == answers[row].tolist()


@several_views
@pytest.mark.parametrize("decoder", DECODERS)
def test_cached_equals_uncached_and_static(decoder, rows):
    model, inputs = build(decoder), batch(rows)
    cached = generate(model, inputs)
    assert torch.equal(cached, generate(model, inputs, use_cache=False))
    assert torch.equal(cached, generate(model, inputs, cache_implementation="static"))


def test_left_and_right_padding_agree():
    model = build()
    left, right = batch(ROWS, "left"), batch(ROWS, "right")
    for inputs in (left, right):
        inputs["position_ids"] = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
    outputs = [model(**inputs).logits for inputs in (left, right)]
    for row, (ids, _) in enumerate(ROWS):
        torch.testing.assert_close(outputs[0][row, -len(ids) :], outputs[1][row, : len(ids)], rtol=1e-4, atol=1e-4)


def test_generating_from_right_padded_rows_is_refused():
    with pytest.raises(PromptError, match="padded on the right"):
        generate(build(), batch(ROWS, "right"))


def test_beams_and_several_sequences_keep_each_row_its_pictures():
    model, inputs = build(), batch(ROWS)
    alone = generate(model, inputs, num_beams=3)
    several = generate(model, inputs, num_beams=3, num_return_sequences=2)
    assert torch.equal(several[::2], alone)
    for row in (0, 1, 3):
        single = batch([ROWS[row]])
        first = sum(ids.count(small.IMAGE_ID) for ids, _ in ROWS[:row]) // small.TOKENS_PER_VIEW
        single["pixel_values"] = inputs["pixel_values"][first : first + single["pixel_values"].shape[0]]
        assert generate(model, single, num_beams=3)[0].tolist() == alone[row].tolist()


def test_compiled_without_placements_is_refused_not_blind(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    with pytest.raises(PromptError, match="view_index"):
        build()(**batch([chat(3)]))


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [("compressor", {"window": 4}, "does not divide the grid"), ("image", {"layout": "tiles"}, "cuts nothing")],
)
def test_a_preset_changed_into_nonsense_is_refused_when_built(part, change, message):
    config = presets.nano()
    setattr(config, part, getattr(config, part).model_copy(update=change))
    with pytest.raises(ConfigError, match=message):
        SaccadeForConditionalGeneration(config)


def test_backbones_that_cannot_stand_in_are_named():
    fields = small.config().to_dict()
    fields.pop("model_type")
    with pytest.raises(ConfigError, match="siglip2_vision_model"):
        SaccadeConfig(**(fields | {"vision_config": {"model_type": "siglip2_vision_model"}}))
    gpt2 = {"model_type": "gpt2", "n_layer": 2, "n_embd": 20, "n_head": 2, "vocab_size": small.VOCAB}
    with pytest.raises(ConfigError, match="GPT2Model"):
        SaccadeForConditionalGeneration(SaccadeConfig(**(fields | {"text_config": gpt2})))


@pytest.mark.parametrize("decoder", DECODERS)
def test_compiled_whole_equals_eager(decoder):
    model = build(decoder)
    inputs = placed(batch([chat(3), chat(7, turns=2)]))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(**inputs).logits, model(**inputs).logits, rtol=1e-4, atol=1e-4)


def gradients(model, inputs) -> dict[str, torch.Tensor]:
    model.zero_grad()
    labels = inputs["input_ids"].masked_fill(inputs["mm_token_type_ids"] != TEXT, -100)
    model(**inputs, labels=labels, use_cache=False).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_checkpointed_gradients_equal_plain():
    model, inputs = build(), batch([chat(3), chat(5, turns=2)])
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    plain = gradients(model, inputs)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    checkpointed = gradients(model, inputs)
    assert plain.keys() == checkpointed.keys()
    assert any("embedded_query.image_down" in name for name in plain)
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_a_stage_that_names_the_tower_trains_it_through_every_view():
    """The tower of a reference runs without gradients, even in the recipe that unfreezes it."""
    model, inputs = build(), batch([chat(3, views=5)])
    assign_groups(model, (Group(pattern="vision_tower", lr=1e-4),))
    inputs["pixel_values"].requires_grad_()
    found = gradients(model, inputs)
    assert found.keys() == {name for name, _ in model.named_parameters() if "vision_tower" in name}
    # A key's bias shifts all scores of a query alike, so its gradient is zero up to rounding.
    assert all(gradient.abs().sum() > 0 for name, gradient in found.items() if not name.endswith("k_proj.bias"))
    assert bool((inputs["pixel_values"].grad.abs().sum((1, 2, 3)) > 0).all())


def test_a_copy_uses_its_own_query_module():
    model, inputs = build(), batch([chat(3)])
    before = model(**inputs).logits
    twin = copy.deepcopy(model)
    twin.model.embedded_query.up.weight.data.normal_()
    assert torch.equal(model(**inputs).logits, before)
    assert not torch.allclose(twin(**inputs).logits, before)


def test_saved_equals_loaded(tmp_path):
    model, inputs = build(), batch(ROWS)
    model.save_pretrained(tmp_path)
    loaded = SaccadeForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)


def test_lora_merged_equals_unmerged():
    model, inputs = build(), batch(ROWS)
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj", "text_down", "linears.0"], init_lora_weights=False)
    tuned = get_peft_model(model, config).eval()
    apart = tuned(**inputs).logits
    torch.testing.assert_close(tuned.merge_and_unload()(**inputs).logits, apart, rtol=1e-3, atol=1e-4)


def test_rows_may_share_a_view():
    model, inputs = build(), batch([chat(3), chat(6)])
    inputs["pixel_values"] = inputs["pixel_values"][:1]
    shared = model(**inputs, view_index=torch.tensor([[0], [0]])).logits
    apart = inputs | {"pixel_values": inputs["pixel_values"].repeat(2, 1, 1, 1)}
    torch.testing.assert_close(shared, model(**apart).logits, rtol=1e-4, atol=1e-5)


def test_encoded_patches_stand_for_pixels():
    model, inputs = build(), batch(ROWS)
    expected = generate(model, inputs)
    features = model.get_image_features(inputs.pop("pixel_values"))
    assert features.pooler_output.shape[1:] == (small.TOKENS_PER_VIEW, 20)
    assert torch.equal(generate(model, inputs | {"image_features": features.last_hidden_state}), expected)


def test_queries_see_their_instruction_and_earlier_views_only():
    model = build()
    seen: list[torch.Tensor] = []
    layer = model.model.embedded_query.layers[-1]
    layer.register_forward_hook(lambda module, args, output: seen.extend(output[1:]))
    tokens, patches = small.TOKENS_PER_VIEW, small.GRID**2
    first, second = chat(3), chat(2)
    later = [role + 2 if role > IMAGE else role for role in second[1]]
    inputs = batch([(first[0] + second[0], first[1] + later)])
    model(**inputs)
    text, image = (weights[0].mean(0) for weights in seen)
    roles = inputs["mm_token_type_ids"][0]
    for turn in range(2):
        rows = slice(turn * small.NUM_QUERIES, (turn + 1) * small.NUM_QUERIES)
        assert torch.equal(text[rows].sum(0) > 0, roles == instruction_role(turn))
        assert bool((image[rows, :patches] > 0).all())
        assert bool((image[rows, patches:] > 0).all()) == (turn == 1)
        torch.testing.assert_close(image[rows].sum(1), torch.ones(small.NUM_QUERIES))
    assert tokens * 2 == int((roles == IMAGE).sum())


def test_a_query_without_a_picture_stays_as_it_is():
    """By default a text-only turn has no query set; where one is asked for, nothing is written to it."""
    model = build()
    ids, roles = chat(3, views=0)
    mixed = batch([(ids, roles), chat(3)])
    alone = batch([(ids, roles)])
    last = [model(**inputs).logits[0, -1] for inputs in (mixed, alone)]
    torch.testing.assert_close(last[0], last[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "fields",
    [
        {"fusion": "replace"},
        {"fusion": "gate"},
        {"init": "dot"},
        {"init": "random"},
        {"num_layers": 3},
        {"before_layers": (0, 2)},
    ],
)
def test_published_options_change_the_answer_and_train(fields):
    inputs = batch([chat(3)])
    plain, changed = build(), build(**fields)
    shared = changed.load_state_dict(plain.state_dict(), strict=False)
    assert not [name for name in shared.missing_keys if "gate" not in name and "layers.2" not in name]
    assert not torch.allclose(plain(**inputs).logits, changed(**inputs).logits, atol=1e-4)
    grads = gradients(changed, inputs)
    assert {name for name, _ in changed.named_parameters()} == grads.keys()


def test_compressors_give_the_tokens_they_promise():
    pixels = torch.randn(2, 3, 24, 24)
    for kind, count in (("sap", 16), ("average", 16), ("none", 64)):
        fields = small.config().to_dict()
        fields["compressor"] = {"kind": kind} | ({"window": small.WINDOW} if kind != "none" else {})
        fields.pop("model_type")
        model = SaccadeForConditionalGeneration(SaccadeConfig(**fields))
        assert model.config.tokens_per_view == count
        assert model.get_image_features(pixels).pooler_output.shape == (2, count, 20)


def test_average_is_the_mean_of_each_window():
    fields = small.config().to_dict() | {"compressor": {"kind": "average", "window": small.WINDOW}}
    fields.pop("model_type")
    model = SaccadeForConditionalGeneration(SaccadeConfig(**fields))
    patches = torch.randn(1, small.GRID**2, 12)
    grid = patches.view(small.GRID, small.GRID, 12)
    pooled = model.model.compressor(patches)[0]
    torch.testing.assert_close(pooled[5], grid[2:4, 2:4].mean((0, 1)))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda i: i.pop("mm_token_type_ids"), PromptError, "mm_token_type_ids"),
        (lambda i: i.pop("pixel_values"), PlaceholderMismatchError, "0 views were given"),
        (lambda i: i.update(pixel_values=i["pixel_values"].repeat(2, 1, 1, 1)), PlaceholderMismatchError, "2 views"),
        (lambda i: i.update(view_index=torch.tensor([[-1]])), PlaceholderMismatchError, "row 0"),
        (lambda i: i.update(view_index=torch.tensor([[4]])), PlaceholderMismatchError, "names view 4"),
        (lambda i: i["input_ids"].__setitem__((0, 2), 9), PlaceholderMismatchError, "row 0 has 15 image tokens"),
        (lambda i: i.pop("input_ids"), PromptError, "exactly one"),
    ],
)
def test_bad_input_is_one_typed_error(change, error, message):
    inputs = batch([chat(3)])
    change(inputs)
    with pytest.raises(error, match=message):
        build()(**inputs)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image": {"side": 25}}, "image.side"),
        ({"image": {"side": 24, "tiles_per_side": 2}}, "^image is not valid: image.layout 'single' has neither"),
        ({"image": {"side": 24, "thumbnail_fit": "pad"}}, "thumbnail_fit 'pad'"),
        ({"image": {"side": 24, "layout": "tiles"}}, "image.layout 'tiles' .* cuts nothing"),
        ({"compressor": {"kind": "sap", "window": 3}}, "does not divide the grid"),
        ({"compressor": {"kind": "magic"}}, "compressor is not valid"),
        ({"vision": {"layer": -9}}, "vision.layer"),
        ({"vision": {"layer": -1, "post_norm": False, "norm_module": "nope"}}, "norm_module"),
        ({"query_token_id": None}, "belong together"),
        ({"query": {"hidden_size": 9, "num_heads": 2, "num_queries": 5, "before_layers": (1,)}}, "does not divide"),
        ({"query": {"hidden_size": 9, "num_heads": 3, "num_queries": 5, "before_layers": (3,)}}, "before_layers"),
        ({"query": {"hidden_size": 9, "num_heads": 3, "num_queries": 4, "before_layers": (1,)}}, "num_queries"),
        ({"projector": {"hiden_sizes": (3,)}}, "projector is not valid: hiden_sizes .* known fields: hidden_sizes, "),
        ({"compressor": {"kind": "sap", "windw": 3}}, "compressor is not valid: sap: windw .* known fields: kind, win"),
        ({"query": {"hidden_size": 9, "num_heads": "x", "before_layers": (1,)}}, r"query .* num_heads: .* \(got 'x'\)"),
        ({"projector": {"activation": "gelux"}}, "projector.activation"),
        ({"text_config": {"model_type": "nonesuch"}}, "nonesuch"),
    ],
)
def test_contradictory_configurations_are_refused(fields, message):
    base = small.config().to_dict()
    base.pop("model_type")
    with pytest.raises(ConfigError, match=message):
        SaccadeForConditionalGeneration(SaccadeConfig(**(base | fields)))


def test_full_size_preset_has_the_published_count():
    with torch.device("meta"):
        model = SaccadeForConditionalGeneration(presets.flashsloth())
    assert sum(parameter.numel() for parameter in model.parameters()) == 3_196_373_985
    assert model.config.tokens_per_view + model.config.query.num_queries == 90
