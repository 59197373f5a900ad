"""The model's invariants, at odd geometries, for both families and over several decoders.

Greedy ids must agree exactly in float32.
"""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import PhiConfig, Qwen2Config, Qwen3Config

import chats
import small
from chats import alone, batch, chat, generate, gradients, in_tiles, placed, single_views
from saccade import presets
from saccade.config import SaccadeConfig
from saccade.errors import ConfigError, PlaceholderMismatchError, PromptError
from saccade.model import SaccadeForConditionalGeneration
from saccade.roles import IMAGE, instruction_role
from saccade.train.stages import Group
from saccade.train.trainer import assign_groups

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
# One model of queries for every decoder, and the two shapes of the family that has none.
MODELS = {name: small.changed(small.config(), text_config=decoder) for name, decoder in DECODERS.items()} | {
    "shuffled": small.changed(small.shuffled(), text_config=DECODERS["qwen2"]),
    "cropped": small.changed(small.cropped(), text_config=DECODERS["qwen2"]),
}
every_model = pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)
every_family = pytest.mark.parametrize(
    "config", [MODELS["phi"], MODELS["shuffled"], MODELS["cropped"]], ids=["queries", "shuffled", "cropped"]
)
several_views = pytest.mark.parametrize("rows", [single_views, in_tiles], ids=["single", "tiles"])


def build(config: SaccadeConfig = MODELS["phi"], **query: object) -> SaccadeForConditionalGeneration:
    if query:
        config = small.changed(config, query=config.query.model_dump() | query)
    return chats.build(config)


@several_views
@every_model
def test_batched_equals_single(config, rows):
    model, rows = build(config), rows(config)
    answers = generate(model, batch(rows, of=config))
    for row, answer in enumerate(answers):
        assert generate(model, alone(rows, row, of=config))[0].tolist() == answer.tolist()


@several_views
@every_model
def test_cached_equals_uncached_and_static(config, rows):
    model, inputs = build(config), batch(rows(config), of=config)
    cached = generate(model, inputs)
    assert torch.equal(cached, generate(model, inputs, use_cache=False))
    assert torch.equal(cached, generate(model, inputs, cache_implementation="static"))


@every_family
def test_left_and_right_padding_agree(config):
    model, rows = build(config), single_views(config)
    left, right = batch(rows, "left", of=config), batch(rows, "right", of=config)
    for inputs in (left, right):
        inputs["position_ids"] = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
    outputs = [model(**inputs).logits for inputs in (left, right)]
    for row, (ids, _) in enumerate(rows):
        torch.testing.assert_close(outputs[0][row, -len(ids) :], outputs[1][row, : len(ids)], rtol=1e-4, atol=1e-4)


def test_generating_from_right_padded_rows_is_refused():
    with pytest.raises(PromptError, match="padded on the right"):
        generate(build(), batch(single_views(), "right"))


@every_family
def test_beams_and_several_sequences_keep_each_row_its_pictures(config):
    model, rows = build(config), single_views(config)
    inputs = batch(rows, of=config)
    together = generate(model, inputs, num_beams=3)
    several = generate(model, inputs, num_beams=3, num_return_sequences=2)
    assert torch.equal(several[::2], together)
    for row in (0, 1, 3):
        assert generate(model, alone(rows, row, of=config), num_beams=3)[0].tolist() == together[row].tolist()


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


CLIP = {
    "model_type": "clip_vision_model", "hidden_size": 12, "intermediate_size": 14, "num_hidden_layers": 2,
    "num_attention_heads": 3, "image_size": 24, "patch_size": 3,
}  # fmt: skip


@pytest.mark.parametrize("compressor", [{"kind": "none"}, {"kind": "sap", "window": 2}], ids=["none", "sap"])
@pytest.mark.parametrize(("prefix", "tower", "left"), [(3, "siglip", "61 of the tower's 64"), (0, "clip", "65 of")])
def test_a_wrong_number_of_prefix_tokens_is_told_when_a_view_is_encoded(prefix, tower, left, compressor):
    changes = {"vision": {"num_prefix_tokens": prefix}, "compressor": compressor}
    config = small.changed(small.config(), **changes | ({"vision_config": CLIP} if tower == "clip" else {}))
    model = SaccadeForConditionalGeneration(config).model
    with pytest.raises(ConfigError, match=f"num_prefix_tokens {prefix} leaves {left} .* but a view has 64 patches"):
        model.get_image_features(torch.zeros(1, 3, 24, 24))


def test_backbones_that_cannot_stand_in_are_named():
    with pytest.raises(ConfigError, match="siglip2_vision_model"):
        small.changed(small.config(), vision_config={"model_type": "siglip2_vision_model"})
    gpt2 = {"model_type": "gpt2", "n_layer": 2, "n_embd": 20, "n_head": 2, "vocab_size": small.VOCAB}
    with pytest.raises(ConfigError, match="GPT2Model"):
        SaccadeForConditionalGeneration(small.changed(small.config(), text_config=gpt2))


@every_model
def test_compiled_whole_equals_eager(config):
    model = build(config)
    inputs = placed(batch([chat(3, of=config), chat(7, turns=2, of=config)], of=config), of=config)
    torch._dynamo.reset()  # each model is one more graph of the same function, and their number is limited
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(**inputs).logits, model(**inputs).logits, rtol=1e-4, atol=1e-4)


@every_family
def test_checkpointed_gradients_equal_plain(config):
    model, inputs = build(config), batch([chat(3, of=config), chat(5, turns=2, of=config)], of=config)
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    plain = gradients(model, inputs)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    checkpointed = gradients(model, inputs)
    assert plain.keys() == checkpointed.keys() == {name for name, _ in model.named_parameters()}
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


@every_family
def test_a_stage_that_names_the_tower_trains_it_through_every_view(config):
    """The tower of a reference runs without gradients, even in the recipe that unfreezes it."""
    model, inputs = build(config), batch([chat(3, views=5, of=config)], of=config)
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


@every_family
def test_saved_equals_loaded(config, tmp_path):
    model, inputs = build(config), batch(single_views(config), of=config)
    model.save_pretrained(tmp_path)
    loaded = SaccadeForConditionalGeneration.from_pretrained(tmp_path)
    assert [loaded.config.compressor, loaded.config.image] == [config.compressor, config.image]
    assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)


@every_family
def test_lora_merged_equals_unmerged(config):
    model, inputs = build(config), batch(single_views(config), of=config)
    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj", "text_down", "linears.0"], init_lora_weights=False)
    tuned = get_peft_model(model, lora).eval()
    apart = tuned(**inputs).logits
    torch.testing.assert_close(tuned.merge_and_unload()(**inputs).logits, apart, rtol=1e-3, atol=1e-4)


@every_family
def test_rows_may_share_a_view(config):
    model, inputs = build(config), batch([chat(3, of=config), chat(6, of=config)], of=config)
    inputs["pixel_values"] = inputs["pixel_values"][:1]
    shared = model(**inputs, view_index=torch.tensor([[0], [0]])).logits
    apart = inputs | {"pixel_values": inputs["pixel_values"].repeat(2, 1, 1, 1)}
    torch.testing.assert_close(shared, model(**apart).logits, rtol=1e-4, atol=1e-5)


@every_family
def test_encoded_patches_stand_for_pixels(config):
    model, inputs = build(config), batch(single_views(config), of=config)
    expected = generate(model, inputs)
    features = model.get_image_features(inputs.pop("pixel_values"))
    assert features.pooler_output.shape[1:] == (config.tokens_per_view, 20)
    assert features.last_hidden_state.shape[1:] == (config.patches_per_view, 12)
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
        ({"compressor": {"kind": "crop", "margin": 1}}, "crops 1 patches of .* but views repeat image.margin 0"),
        (
            {
                "vision_config": small.config().vision_config.to_dict() | {"image_size": 25},
                "compressor": {"kind": "crop", "margin": 1},
                "image": {"side": 25, "margin": 3},
            },
            "image.side 25 is no multiple of the tower's patches of 3 pixels",
        ),
        (
            {"prompt": {"view_start": "<"}},
            "makes no tiles, so prompt.view_start '<' would never",
        ),
        ({"prompt": {"row_separator": "/"}}, "prompt.row_separator '/'"),
        ({"image": {"side": 24, "tiles_per_side": 2}}, "^image is not valid: image.layout 'single' has no use for"),
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
        ({"compressor": {"kind": "sap", "windw": 3}}, "compressor is not valid: sap: windw .* known fields: window, "),
        ({"query": {"hidden_size": 9, "num_heads": "x", "before_layers": (1,)}}, r"query .* num_heads: .* \(got 'x'\)"),
        ({"projector": {"activation": "gelux"}}, "projector.activation"),
        ({"text_config": {"model_type": "nonesuch"}}, "nonesuch"),
    ],
)
def test_contradictory_configurations_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        SaccadeForConditionalGeneration(small.changed(small.config(), **fields))
