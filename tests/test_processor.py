"""The processor in transformers' hands: it gives what the native path gives, saves, loads and refuses."""

import base64
import copy
import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AddedToken, ProcessorMixin

from saccade.config import ImageConfig, PromptConfig, SaccadeConfig
from saccade.data.collate import Sample, collate
from saccade.errors import ConfigError, ImageError, PlaceholderMismatchError, PromptError
from saccade.image import normalize, open_image, to_views
from saccade.image.processor import SaccadeImageProcessor, SaccadeProcessor, build_processor
from saccade.prompt import Encoded, Turn, chat_template, encode, parse_messages, render_chat
from saccade.prompt.encode import IGNORE
from saccade.roles import IMAGE
from tokenizers_for_tests import (
    CHAT_MARKUP,
    CHATML_TILES,
    PLAIN_TEXT,
    SPECIALS,
    TEMPLATES,
    UNUSUAL,
    WITHOUT_QUERIES,
    tokenizer,
)

SIDE, TOKENS = 10, 6
TILES: dict[str, Any] = {"layout": "tiles", "fit": "pad", "tiles_per_side": 2}
DYNAMIC: dict[str, Any] = {
    "layout": "dynamic", "max_tiles": 3, "grid_side": 8, "thumbnail": False, "thumbnail_fit": "pad", "margin": 2,
}  # fmt: skip
CUT: dict[str, Any] = {"layout": "dynamic", "max_tiles": 4, "grid_side": 16}
MAX_PIXELS = 10_000

EXACT_MASKS = pytest.mark.skipif(
    not hasattr(ProcessorMixin, "_adjust_assistant_masks_indices"),
    reason="this release of transformers misplaces assistant masks",
)


def processor(prompt: PromptConfig = PLAIN_TEXT, **image: Any) -> SaccadeProcessor:
    return SaccadeProcessor(
        SaccadeImageProcessor(side=SIDE, tokens_per_view=TOKENS, max_pixels=MAX_PIXELS, **image), tokenizer(), prompt
    )


def photo(seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed)
    return Image.fromarray(noise.integers(0, 256, (13 + seed, 21, 3), dtype=np.uint8))


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def escaped(text: str) -> str:
    for token in SPECIALS:
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def native(messages: list[dict[str, Any]], ours: SaccadeProcessor, *, generate: bool) -> Encoded:
    """Encode without transformers, with the text as the Jinja template escapes it."""
    turns = [Turn(turn.role, escaped(turn.text), turn.images) for turn in parse_messages(messages)]
    parts = [part for message in messages if isinstance(message["content"], list) for part in message["content"]]
    pictures = [ours.picture_segments(*part["image"].size) for part in parts if part["type"] == "image"]
    return encode(render_chat(turns, ours.prompt, generate=generate), tokenizer(), pictures)


def random_messages(rng: random.Random) -> list[dict[str, Any]]:
    words = (
        "Who ",
        "is",
        " there?\n",
        "<image>",
        "</s>USER: ",
        "三角形",
        '"',
        "\\n",
        "{{ x }}",
        "{% raw %}",
        "[PLACEHOLDER_1]",
    )
    messages: list[dict[str, Any]] = []
    if rng.random() < 0.3:
        messages.append({"role": "system", "content": rng.choice(("Be brief, <learnable>.", ""))})
    for _ in range(rng.randint(1, 3)):
        text = "".join(rng.choices(words, k=rng.randint(1, 5)))
        parts: list[dict[str, Any]] = [{"type": "image", "image": photo(n)} for n in rng.choice(((), (0,), (9, 1)))]
        parts.insert(rng.randint(0, len(parts)), {"type": "text", "text": text})
        messages.append({"role": "user", "content": rng.choice((text, parts))})
        messages.append({"role": "assistant", "content": "".join(rng.choices(words, k=rng.randint(0, 3)))})
    return messages


VARIANTS = (
    {},
    {"blank_before_query": True, "query_without_image": "queries"},
    {"query_without_image": "token", "history_instruction": "first"},
)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("name", TEMPLATES)
def test_the_chat_template_gives_what_rendering_gives(name: str, variant: dict[str, Any]) -> None:
    prompt = TEMPLATES[name].model_copy(update=variant)
    rng = random.Random(f"{name} {variant}")
    for n in range(12):
        ours = processor(prompt, **({}, TILES, CUT)[n % 3])
        messages, generate = random_messages(rng), rng.random() < 0.5
        messages = messages[:-1] if generate else messages
        expected = native(messages, ours, generate=generate)
        out = ours.apply_chat_template(
            copy.deepcopy(messages), tokenize=True, return_dict=True, add_generation_prompt=generate
        )
        assert list(out["input_ids"][0]) == expected.input_ids
        assert list(out["mm_token_type_ids"][0]) == expected.roles
        assert list(out["attention_mask"][0]) == [1] * len(expected.roles)


@EXACT_MASKS
@pytest.mark.parametrize("prompt", [PLAIN_TEXT, CHATML_TILES], ids=["plain text", "chatml tiles"])
@pytest.mark.parametrize("pictures", [0, 1])
def test_the_generation_block_is_what_is_trained(pictures: int, prompt: PromptConfig) -> None:
    ours = processor(prompt, **CUT)
    parts = [{"type": "image", "image": photo()}] * pictures
    messages = [
        {"role": "user", "content": [*parts, {"type": "text", "text": "One?"}]},
        {"role": "assistant", "content": "Red"},
        {"role": "user", "content": "Two?"},
        {"role": "assistant", "content": "Blue"},
    ]
    expected = native(messages, ours, generate=False)
    out = ours.apply_chat_template(messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    assert [bool(mask) for mask in out["assistant_masks"][0]] == [label != IGNORE for label in expected.labels]


@pytest.mark.parametrize("fields", [{}, TILES, CUT], ids=["single", "tiles", "dynamic"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_batch_is_the_collated_batch(side: str, fields: dict[str, Any]) -> None:
    ours, pictures = processor(**fields), [photo(0), photo(1), photo(2)]

    def content(text: str, *images: Image.Image) -> list[dict[str, Any]]:
        return [*({"type": "image", "image": image} for image in images), {"type": "text", "text": text}]

    conversations = [
        [{"role": "user", "content": content("What color is the circle?", pictures[0])}],
        [{"role": "user", "content": content("Hello")}],
        [{"role": "user", "content": content("Same?", pictures[1], pictures[2])}],
    ]
    out = ours.apply_chat_template(
        copy.deepcopy(conversations),
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, "padding_side": side},
    )
    image = ImageConfig(side=SIDE, **fields)
    views = [to_views(open_image(p, MAX_PIXELS), image) for p in pictures]
    samples = [
        Sample(native(conversation, ours, generate=True), own)
        for conversation, own in zip(conversations, (views[0], None, np.concatenate([views[1], views[2]])), strict=True)
    ]
    expected = collate(
        samples,
        image=image,
        pad_id=tokenizer().pad_token_id,
        tokens_per_view=TOKENS,
        num_queries=9,
        padding_side=side,
        labels=False,
    )
    assert set(out) == set(ours.model_input_names) == set(expected) - {"view_index", "query_positions"}
    for name in out:
        assert torch.equal(out[name], expected[name]), name


def test_tiles_in_a_string() -> None:
    """A thumbnail, then two rows of one tile; the texts around them are no visual tokens."""
    ours, image = processor(CHATML_TILES, **CUT), photo(9)
    messages = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "Hi"}]}]
    out = ours.apply_chat_template(messages, tokenize=True, return_dict=True)
    view, tile = "<image>" * TOKENS, "[PLACEHOLDER_0]" + "<image>" * TOKENS + "[PLACEHOLDER_1]"
    queries = "<learnable>" * CHATML_TILES.num_queries
    assert tokenizer().decode(out["input_ids"][0]) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n{view}{tile}\n{tile}\nHi{queries}<|im_end|>\n"
    )
    counts = ours._get_num_multimodal_tokens(image_sizes=[(image.height, image.width)])
    assert counts.num_image_tokens == [3 * TOKENS] == [list(out["mm_token_type_ids"][0]).count(IMAGE)]


def test_a_prompt_without_a_picture() -> None:
    out = processor().apply_chat_template(
        [{"role": "user", "content": "Hello"}], add_generation_prompt=True, tokenize=True, return_dict=True
    )
    assert set(out) == {"input_ids", "attention_mask", "mm_token_type_ids"}


def test_a_question_waits_for_the_header() -> None:
    ours, messages = processor(), [{"role": "user", "content": "Hello"}]
    text = ours.apply_chat_template(messages)
    assert text == PLAIN_TEXT.system + "USER: Hello "
    assert ours.apply_chat_template(messages, add_generation_prompt=True) == text + "ASSISTANT:"


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "assistant", "content": "x"}],
        [{"role": "user", "content": "x"}] * 2,
        [{"role": "user", "content": " "}],
        [{"role": "user", "content": [{"type": "sound"}]}],
        [{"role": "user", "content": "x"}, {"role": "system", "content": "x"}],
        [{"role": "user", "content": "x"}, {"role": "assistant", "content": [{"type": "image"}]}],
    ],
)
def test_the_template_refuses_what_parsing_refuses(messages: list[dict[str, Any]]) -> None:
    with pytest.raises(PromptError):
        parse_messages(messages)
    with pytest.raises(Exception, match=r"message|conversation"):
        processor().apply_chat_template(messages)


class TestCounts:
    @pytest.mark.parametrize(("fields", "views"), [({}, 1), (TILES, 5)], ids=["single", "tiles"])
    def test_known_before_the_pixels(self, fields: dict[str, Any], views: int) -> None:
        ours = processor(**fields)
        counts = ours._get_num_multimodal_tokens(image_sizes=[(13, 21), (400, 3)])
        assert counts.num_image_tokens == [views * TOKENS] * 2
        assert counts.num_image_patches == [views] * 2
        assert ours.image_processor.num_image_tokens(21, 13) == views * TOKENS
        assert "num_image_tokens" not in ours._get_num_multimodal_tokens()

    def test_known_by_the_size_of_each_picture(self) -> None:
        ours, sizes = processor(**DYNAMIC), [(13, 40), (40, 13), (8, 8), (20, 19)]
        counts = ours._get_num_multimodal_tokens(image_sizes=sizes)
        out = ours.image_processor([Image.new("RGB", size[::-1]) for size in sizes])
        assert counts.num_image_patches == out["num_views"] == [3, 3, 1, 2]
        assert counts.num_image_tokens == [3 * TOKENS, 3 * TOKENS, TOKENS, 2 * TOKENS]
        assert len(out["pixel_values"]) == 9

    @pytest.mark.parametrize("count", [0, 2])
    def test_a_picture_per_placeholder(self, count: int) -> None:
        images = [photo(n) for n in range(count)] or None
        with pytest.raises(PlaceholderMismatchError, match=f"1 <image> placeholders but {count} pictures"):
            processor()(images=images, text="USER: <image>\nx")

    def test_a_typed_query(self) -> None:
        with pytest.raises(PlaceholderMismatchError, match="1 <learnable> tokens"):
            processor()(images=photo(), text="USER: <image>\nx<learnable> ASSISTANT:")


class TestPictures:
    def test_every_source_gives_the_same_pixels(self, tmp_path: Path) -> None:
        image, path = photo(), tmp_path / "photo.png"
        path.write_bytes(png(image))
        uri = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
        ours = processor().image_processor
        expected = normalize(to_views(image, ours.config), ours.config)
        for source in (image, str(path), path, path.read_bytes(), np.asarray(image), uri, [image], [[image]]):
            out = ours(source)
            assert np.array_equal(out["pixel_values"], expected)
            assert out["num_views"] == [1]

    def test_tensors(self) -> None:
        pixels = processor().image_processor([photo(0), photo(1)], return_tensors="pt")["pixel_values"]
        assert pixels.shape == (2, 3, SIDE, SIDE)
        assert pixels.dtype == torch.float32

    def test_transparent_pictures_lie_on_white(self) -> None:
        clear = Image.new("RGBA", (5, 5), (10, 20, 30, 0))
        assert np.array_equal(processor().image_processor(clear)["pixel_values"], np.ones((1, 3, SIDE, SIDE)))

    @pytest.mark.parametrize(
        ("source", "complaint"),
        [
            ([], "no picture in the list"),
            ("data:image/png;base64,%%%", "not valid base64"),
            ("data:image/png;base64,AAAA", "not a picture"),
            ("missing.png", "no picture file"),
            (Image.new("L", (101, 100)), "more than the limit of 10000"),
        ],
    )
    def test_refused(self, source: Any, complaint: str) -> None:
        with pytest.raises(ImageError, match=complaint):
            processor().image_processor(source)

    @pytest.mark.parametrize(
        ("field", "problem"),
        [
            ({"fit": "crop"}, r"fit: Input should be 'squash' or 'pad' \(got 'crop'\)"),
            ({"std": (1.0,)}, "std.1: Field required .*"),
            ({"side": 0}, r"side: Input should be greater than 0 \(got 0\)"),
            ({"layout": "tiles"}, "image.layout 'tiles' .* cuts nothing: set tiles_per_side to 2 or more"),
            ({"margin": 5}, "image.margin 5 on both sides leaves nothing of image.side 10: keep it below half"),
        ],
    )
    def test_settings_are_checked(self, field: dict[str, Any], problem: str) -> None:
        with pytest.raises(ConfigError, match=f"^the image processor is not valid: {problem}$"):
            SaccadeImageProcessor(**({"side": SIDE, "tokens_per_view": TOKENS} | field))
        for make in (lambda fields: ImageConfig(**fields), ImageConfig.model_validate):
            with pytest.raises(ConfigError, match=f"^ImageConfig is not valid: {problem}$"):
                make({"side": SIDE} | field)


class TestSaved:
    @pytest.mark.parametrize("prompt", [UNUSUAL, WITHOUT_QUERIES, CHAT_MARKUP], ids=["unusual", "none", "markup"])
    def test_the_processor_comes_back(self, prompt: PromptConfig, tmp_path: Path) -> None:
        ours = processor(prompt, **TILES, thumbnail_fit="pad", pad_value=3, mean=(0.1, 0.2, 0.3))
        ours.save_pretrained(tmp_path)
        loaded = SaccadeProcessor.from_pretrained(tmp_path)
        assert loaded.prompt == prompt
        assert loaded.image_processor.config == ours.image_processor.config
        assert loaded.image_processor.tokens_per_view == TOKENS
        assert loaded.chat_template == ours.chat_template == chat_template(prompt, SPECIALS)
        messages = [
            {"role": "user", "content": [{"type": "image", "image": photo()}, {"type": "text", "text": "三 <image>"}]}
        ]
        first, second = (
            p.apply_chat_template(copy.deepcopy(messages), tokenize=True, return_dict=True) for p in (ours, loaded)
        )
        assert set(first) == set(second)
        assert first["input_ids"] == second["input_ids"]
        assert first["mm_token_type_ids"] == second["mm_token_type_ids"]
        assert np.array_equal(first["pixel_values"], second["pixel_values"])

    @pytest.mark.parametrize("fields", [{"resample": "bilinear"}, DYNAMIC, DYNAMIC | {"grid_side": None}], ids=str)
    def test_the_image_processor_comes_back(self, fields: dict[str, Any], tmp_path: Path) -> None:
        ours = processor(**fields).image_processor
        assert fields.items() <= ours.config.model_dump().items()
        ours.save_pretrained(tmp_path)
        assert (tmp_path / "preprocessor_config.json").is_file()
        loaded = SaccadeImageProcessor.from_pretrained(tmp_path)
        assert loaded.config == ours.config
        assert loaded.to_dict() == ours.to_dict()

    def test_a_template_of_ones_own_stays(self, tmp_path: Path) -> None:
        ours = SaccadeProcessor(processor().image_processor, tokenizer(), PLAIN_TEXT, chat_template="{{ 'mine' }}")
        ours.save_pretrained(tmp_path)
        assert SaccadeProcessor.from_pretrained(tmp_path).chat_template == "{{ 'mine' }}"


class TestBuilt:
    def config(self, **changes: Any) -> SaccadeConfig:
        fields: dict[str, Any] = {
            "vision_config": {"model_type": "siglip_vision_model", "image_size": 24, "patch_size": 4},
            "text_config": {"model_type": "phi", "num_hidden_layers": 2},
            "compressor": {"kind": "sap", "window": 2},
            "image": {"side": 24, "fit": "pad"},
            "query": {"num_queries": 9, "hidden_size": 12, "num_heads": 4, "before_layers": [1]},
            "prompt": PLAIN_TEXT,
            "image_token_id": tokenizer().convert_tokens_to_ids("<image>"),
            "query_token_id": tokenizer().convert_tokens_to_ids("<learnable>"),
        }
        return SaccadeConfig(**(fields | changes))

    def test_from_a_configuration(self) -> None:
        config = self.config()
        built = build_processor(config, tokenizer())
        assert built.prompt == config.prompt
        assert built.image_processor.config == config.image
        assert built.image_processor.tokens_per_view == config.tokens_per_view == 9
        assert (built.image_token_id, built.query_token_id) == (config.image_token_id, config.query_token_id)

    def test_without_queries(self) -> None:
        config = self.config(query=None, prompt=WITHOUT_QUERIES, query_token_id=None)
        assert build_processor(config, tokenizer()).query_token_id is None

    @pytest.mark.parametrize("name", ["image_token", "query_token"])
    def test_another_id(self, name: str) -> None:
        config = self.config(**{f"{name}_id": 7})
        with pytest.raises(ConfigError, match=f"config.{name}_id is 7 but the tokenizer writes"):
            build_processor(config, tokenizer())

    @pytest.mark.parametrize(
        ("token", "complaint"),
        [
            (None, "not a special token"),
            (AddedToken("<eye>", special=False), "not a special token"),
            (AddedToken("<eye>", special=True, rstrip=True), "swallows blanks"),
        ],
    )
    def test_placeholders_that_text_could_produce(self, token: AddedToken | None, complaint: str) -> None:
        changed = copy.deepcopy(tokenizer())
        if token is not None:
            changed.add_tokens([token])
        prompt = PLAIN_TEXT.model_copy(update={"image_token": "<eye>"})
        with pytest.raises(ConfigError, match=f"<eye> .*{complaint}"):
            SaccadeProcessor(processor().image_processor, changed, prompt)

    def test_a_template_that_is_not_valid(self) -> None:
        with pytest.raises(ConfigError, match=r"prompt of the processor is not valid: sytem .* known fields: system, "):
            SaccadeProcessor(processor().image_processor, tokenizer(), {"sytem": "x"})
