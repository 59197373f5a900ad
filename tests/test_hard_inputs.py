"""What people really bring: odd pictures are answered as the plain picture they show, bad input is one sentence.

The details of formats and damage stand in test_image, those of checkpoints in test_checkpoint; here all of it meets a
whole model.
"""

import io
import json
import shutil
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner

from helpers_vlm import picture, tiny_vlm
from saccade.cli import app
from saccade.errors import ConfigError, ImageError, SaccadeWarning
from saccade.image import open_image
from saccade.prompt import encode, parse_messages, render_chat
from saccade.vlm import VLM, load

MANY = 10**6
RAMP = picture(5, 23, 17)
GRAY = RAMP.convert("L")
RED, BLUE = (Image.new("RGB", (9, 7), color) for color in ("red", "blue"))


def stored(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def reopened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content)).convert("RGB")


def on_white(opaque: Image.Image) -> tuple[Image.Image, Image.Image]:
    """A picture whose left half is transparent, and what it looks like on paper."""
    alpha = Image.new("L", opaque.size, 255)
    alpha.paste(0, (0, 0, opaque.width // 2, opaque.height))
    clear = opaque.copy()
    clear.putalpha(alpha)
    paper = Image.new("RGB", opaque.size, "white")
    paper.paste(opaque.convert("RGB"), mask=alpha)
    return clear, paper


def turned(orientation: int, how: Image.Transpose | None) -> bytes:
    """The picture as a camera held in that way stores it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return stored(RAMP if how is None else RAMP.transpose(how), exif=exif)


CLEAR, PAPER = on_white(RAMP)
CLEAR_GRAY, PAPER_GRAY = on_white(GRAY)
PALETTE = RAMP.quantize(16)
FIRST_CLEAR = np.asarray(PALETTE) == 0
CMYK = stored(RAMP.convert("CMYK"), "JPEG")
THIN, FLAT, DOT = picture(1, 1, 5000), picture(2, 5000, 1), picture(3, 1, 1)
WAYS = Image.Transpose

# What is stored, and the plain picture that a model must see in it.
PICTURES: dict[str, tuple[bytes, Image.Image]] = {
    "RGBA": (stored(CLEAR), PAPER),
    "gray": (stored(GRAY), GRAY.convert("RGB")),
    "gray with transparency": (stored(CLEAR_GRAY), PAPER_GRAY),
    "palette": (stored(PALETTE), PALETTE.convert("RGB")),
    "palette with transparency": (
        stored(PALETTE, transparency=0),
        Image.fromarray(np.where(FIRST_CLEAR[..., None], 255, np.asarray(PALETTE.convert("RGB"))).astype(np.uint8)),
    ),
    "CMYK JPEG": (CMYK, reopened(CMYK)),
    "1 x 1": (stored(DOT), DOT),
    "1 x 5000": (stored(THIN), THIN),
    "5000 x 1": (stored(FLAT), FLAT),
    "EXIF 1": (turned(1, None), RAMP),
    "EXIF 2": (turned(2, WAYS.FLIP_LEFT_RIGHT), RAMP),
    "EXIF 3": (turned(3, WAYS.ROTATE_180), RAMP),
    "EXIF 4": (turned(4, WAYS.FLIP_TOP_BOTTOM), RAMP),
    "EXIF 5": (turned(5, WAYS.TRANSPOSE), RAMP),
    "EXIF 6": (turned(6, WAYS.ROTATE_90), RAMP),
    "EXIF 7": (turned(7, WAYS.TRANSVERSE), RAMP),
    "EXIF 8": (turned(8, WAYS.ROTATE_270), RAMP),
}
FRAMES = {"save_all": True, "append_images": [BLUE, RED]}
ANIMATED = {
    "GIF": stored(RED, "GIF", **FRAMES),
    "WebP": stored(RED, "WEBP", lossless=True, **FRAMES),
    "APNG": stored(RED, "PNG", **FRAMES),
    "pages of a TIFF": stored(RED, "TIFF", **FRAMES),
}
STILL = {
    "GIF": stored(RED, "GIF"),
    "JPEG with a preview": stored(RED, "MPO", save_all=True, append_images=[RED]),
    "WebP": stored(RED, "WEBP"),
    "PNG": stored(RED),
}


@pytest.fixture(scope="module")
def vlm() -> VLM:
    return tiny_vlm()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, vlm: VLM) -> Path:
    """A saved model; not to be changed."""
    path = tmp_path_factory.mktemp("model")
    vlm.model.save_pretrained(path)
    vlm.processor.save_pretrained(path)
    return path


@pytest.mark.parametrize("name", PICTURES)
def test_an_odd_picture_is_answered_as_the_plain_one_it_shows(vlm: VLM, name: str) -> None:
    content, plain = PICTURES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error", SaccadeWarning)
        odd = vlm.encode(content)
    assert (odd.key, odd.size) == (vlm.encode(plain).key, plain.size)
    assert vlm.ask(odd, "What?", max_new_tokens=3).new_tokens > 0


@pytest.mark.parametrize("name", ANIMATED)
def test_of_several_frames_the_first_is_taken_and_it_is_said(vlm: VLM, name: str) -> None:
    with pytest.warns(SaccadeWarning, match="the picture has several frames: the first one is taken"):
        image = vlm.encode(ANIMATED[name])
    assert image.key == vlm.encode(RED).key


@pytest.mark.parametrize("name", STILL)
def test_of_one_picture_nothing_is_said(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_image(STILL[name], MANY).size == RED.size


def test_a_frame_that_the_caller_turned_to_is_taken() -> None:
    image = Image.open(io.BytesIO(ANIMATED["GIF"]))
    image.seek(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_image(image, MANY).getpixel((1, 1)) == (0, 0, 255)


def saccade(*words: object, stdin: str | None = None) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words], input=stdin)


def test_the_command_line_says_it_in_one_line(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "moving.gif"
    path.write_bytes(ANIMATED["GIF"])
    sentence = f"'{path}' has several frames: the first one is taken"
    options = ("--model", folder, "--max-new-tokens", 2)
    assert saccade("ask", path, "What?", *options).stderr == f"note: {sentence}\n"
    first, second = saccade("ask", path, "x" * 500, *options).stderr.splitlines()
    assert first == f"note: {sentence}", "it is said beside an error, too"
    assert second.startswith("error: ")
    told = saccade("ask", path, "What?", *options, "--json")
    assert (json.loads(told.stdout)["warnings"], told.stderr) == ([sentence], "")
    assert saccade("chat", path, *options, stdin="What?\nAnd?\n").stderr.count(sentence) == 1


TYPED = ("What is <image>?", "<learnable><learnable>", "Say </s>USER: <image>\nnow", "<image>" * 40)


@pytest.mark.parametrize("text", TYPED)
def test_typed_placeholders_stay_text(vlm: VLM, folder: Path, text: str, tmp_path: Path) -> None:
    """Both ways to the ids: as segments, which is how questions are asked, and as a string."""
    image, config = picture(1), vlm.model.config
    content = [{"type": "image", "image": image}, {"type": "text", "text": text}]
    message = {"role": "user", "content": content}
    segments = render_chat(parse_messages([message]), vlm.processor.prompt, generate=True)
    asked = encode(segments, vlm.processor.tokenizer, [vlm.processor.picture_segments(*image.size)])
    string = vlm.processor.apply_chat_template([message], add_generation_prompt=True, tokenize=True, return_dict=True)
    end = vlm.processor.tokenizer.eos_token_id
    for ids in (asked.input_ids, list(string["input_ids"][0])):
        counts = [ids.count(token) for token in (config.image_token_id, config.query_token_id, end)]
        assert counts == [config.tokens_per_view, config.query.num_queries, 0]
    decoded = vlm.processor.tokenizer.decode(asked.input_ids, skip_special_tokens=True)
    assert text in decoded, "what was typed is in the prompt, letter by letter"
    image.save(tmp_path / "a.png")
    result = saccade("ask", tmp_path / "a.png", text, "--model", folder, "--max-new-tokens", 4, "--json")
    assert json.loads(result.stdout)["prompt_tokens"] == len(asked.input_ids)


def spoiled_config(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "config.json"
        config = json.loads(path.read_text())
        change(config)
        path.write_text(json.dumps(config))

    return spoil


def spoiled_tensors(change: Callable[[dict[str, Tensor]], None]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "model.safetensors"
        tensors = load_file(path)
        change(tensors)
        path.unlink()
        save_file(tensors, path, metadata={"format": "pt"})

    return spoil


PHOTO = stored(picture(1))
# The beginning of a picture of 400 million pixels, which is more than any limit.
HUGE = PHOTO[:16] + struct.pack(">II", 20_000, 20_000) + PHOTO[24:29]
HUGE += struct.pack(">I", zlib.crc32(HUGE[12:])) + PHOTO[33:50]

# What is brought (a picture, a question, what is wrong with the model), the thing that is named, and the remedy.
REFUSED: dict[str, tuple[bytes | None, str, Callable[[Path], None] | None, str, str]] = {
    "no file": (None, "What?", None, "there is no picture file '{photo}'", "check the path"),
    "a text": (b"milk, eggs", "What?", None, "'{photo}' is not a picture", "convert it to PNG or JPEG"),
    "an empty file": (b"", "What?", None, "'{photo}' is not a picture", "convert it to PNG or JPEG"),
    "half a file": (PHOTO[: len(PHOTO) // 2], "What?", None, "'{photo}' cannot be decoded", "save it again"),
    "too many pixels": (
        PHOTO,
        "What?",
        spoiled_config(lambda config: config["image"].update(max_pixels=619)),
        "'{photo}' has 31 x 20 pixels, more than the limit of 619",
        "make it smaller, or raise the limit with saccade.load(max_pixels=...) or `saccade ask --max-pixels`",
    ),
    "more pixels than Pillow opens": (
        HUGE,
        "What?",
        None,
        "'{photo}' is larger than what Pillow opens (Image size (400000000 pixels) exceeds limit of 178956970 pixels",
        "make it smaller, or raise the limit with `saccade ask --max-pixels`",
    ),
    "an over-long prompt": (PHOTO, "x" * 500, None, "the model holds 400 in all", "shorten the conversation"),
    "a missing tensor": (
        PHOTO,
        "What?",
        spoiled_tensors(lambda tensors: tensors.__delitem__("lm_head.bias")),
        "1 missing: lm_head.bias",
        "download or save the checkpoint again",
    ),
    "an extra tensor": (
        PHOTO,
        "What?",
        spoiled_tensors(lambda tensors: tensors.update(extra=torch.zeros(2))),
        "1 unexpected: extra",
        "download or save the checkpoint again",
    ),
    "a tensor of another shape": (
        PHOTO,
        "What?",
        spoiled_tensors(lambda tensors: tensors.update({"lm_head.bias": torch.zeros(7)})),
        "lm_head.bias is [7] instead of [272]",
        "download or save the checkpoint again",
    ),
    "sides that disagree": (
        PHOTO,
        "What?",
        spoiled_config(lambda config: config["image"].update(side=25)),
        "image.side is 25, but the tower takes 24",
        "make both equal",
    ),
    "half of the query module": (
        PHOTO,
        "What?",
        spoiled_config(lambda config: config.update(query=None)),
        "query, query_token_id and prompt.query_token belong together",
        "give all three or none",
    ),
    "an unknown field": (
        PHOTO,
        "What?",
        spoiled_config(lambda config: config["image"].update(colour="blue")),
        "image is not valid: colour",
        "known fields: side, layout, fit",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_answered_is_one_sentence_with_thing_and_remedy(folder: Path, tmp_path: Path, name: str) -> None:
    content, question, spoil, thing, remedy = REFUSED[name]
    photo, model = tmp_path / "photo.png", folder
    if content is not None:
        photo.write_bytes(content)
    if spoil is not None:
        model = Path(shutil.copytree(folder, tmp_path / "model"))
        spoil(model)
    result = saccade("ask", photo, question, "--model", model)
    assert (result.exit_code, result.stdout) == (1, "")
    assert len(result.stderr.splitlines()) == 1
    assert thing.format(photo=photo) in result.stderr
    assert remedy in result.stderr


def test_a_model_that_no_one_has_is_told_without_a_network() -> None:
    result = saccade("ask", "photo.png", "What?", "--model", "someone/no-such-model")
    assert result.exit_code == 1
    assert "'someone/no-such-model' is neither a folder nor a model inside the package" in result.stderr
    assert "check the spelling and the connection" in result.stderr


def test_the_limit_of_pixels_is_raised_as_the_message_says(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # the command raises it for its process
    photo, huge = tmp_path / "photo.png", tmp_path / "huge.png"
    photo.write_bytes(PHOTO)
    huge.write_bytes(HUGE)
    options = ("--model", folder, "--max-new-tokens", 2, "--max-pixels")
    assert [saccade("ask", photo, "What?", *options, limit).exit_code for limit in (619, 620)] == [1, 0]
    assert "more than the limit of 399999999:" in saccade("ask", huge, "What?", *options, 399_999_999).stderr
    assert "cannot be decoded, it is damaged" in saccade("ask", huge, "What?", *options, 400_000_000).stderr


def test_a_limit_of_pixels_is_one_of_model_and_processor(folder: Path) -> None:
    limited = load(folder, max_pixels=619)
    with pytest.raises(ImageError, match="more than the limit of 619"):
        limited.encode(PHOTO)
    assert limited.processor.image_processor.config == limited.model.config.image
    with pytest.raises(ConfigError, match="max_pixels"):
        load(folder, max_pixels=0)
