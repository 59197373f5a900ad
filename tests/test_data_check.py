"""The check of rows: what is bad and why, what rows take, and what they look like to the model."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from helpers_vlm import byte_tokenizer, tiny_config
from llava_talks import SHOWN, TALK
from saccade.cli import app
from saccade.config import ImageConfig
from saccade.data.check import CHUNK, check_rows, find_bad, measure, picture_sizes, spread_samples
from saccade.data.colored import colored, legend
from saccade.data.encoder import Encoder
from saccade.data.rows import CaptionRow, ChatRow, PreferenceRow, ProblemRow, RowError
from saccade.data.sources import Source, open_rows
from saccade.presets import nano_hd
from saccade.prompt import Turn, render_plain
from saccade.prompt.encode import IGNORE

ASKED = Turn("user", "What?", images=1)
TEXT = {"conversations": TALK}


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(tiny_config(), byte_tokenizer())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of every format, upright and not, whole and not."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    for name, options in (("a.png", {}), ("a.jpg", {}), ("a.webp", {}), ("turned.jpg", {"exif": turned})):
        noise.save(tmp_path / name, **options)
    for name in ("a.png", "a.jpg", "a.webp"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / f"cut_{name}").write_bytes(whole[: len(whole) * 3 // 4])
    (tmp_path / "text.png").write_text("no picture")
    return tmp_path


def rows_of(folder: Path, *rows: dict[str, Any], kind: str = "chat") -> Any:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return open_rows(Source(path=str(path), kind=kind))


def shown(picture: str) -> dict[str, Any]:
    return {"image": picture, "conversations": SHOWN}


def test_rows_are_encoded_as_what_they_are(encoder):
    size = [(30, 20)]
    chat = encoder.chat([ASKED, Turn("assistant", "a cat")], size)
    assert encoder.row(ChatRow("a:1", (b"",), (ASKED, Turn("assistant", "a cat"))), size) == [chat]
    plain = encoder(render_plain("a cat", encoder.config.prompt), *size)
    assert encoder.row(CaptionRow("a:1", (b"",), "a cat"), size) == [plain] != [chat]
    assert encoder.row(ProblemRow("a:1", (b"",), (ASKED,), "a cat"), size) == [chat]
    two = encoder.row(PreferenceRow("a:1", (b"",), (ASKED,), "a cat", "a dog"), size)
    assert two == [chat, encoder.chat([ASKED, Turn("assistant", "a dog")], size)]


def test_sizes_are_those_of_the_upright_picture(folder, encoder):
    expected = {"a.png": (90, 60), "a.jpg": (90, 60), "a.webp": (90, 60), "turned.jpg": (60, 90)}
    for name, size in expected.items():
        data = (folder / name).read_bytes()
        lazy = Image.open(io.BytesIO(data))
        for picture in (folder / name, data, lazy):
            for whole in (False, True):
                assert picture_sizes(ChatRow("a:1", (picture,), ()), encoder, whole=whole) == [size]
        assert lazy.size == ((90, 60) if name == "turned.jpg" else size)


@pytest.mark.parametrize("name", ["cut_a.png", "cut_a.jpg", "cut_a.webp", "text.png", "none.png", "a" * 300])
def test_broken_pictures_are_found(name, folder, encoder):
    (bad,) = find_bad(rows_of(folder, shown("a.png"), shown(name)), encoder)
    assert (bad.index, bad.where) == (1, f"{folder / 'rows.jsonl'}:2")
    assert bad.reason == ("missing picture" if name in ("none.png", "a" * 300) else "broken picture")
    assert name in bad.detail


def test_headers_tell_missing_pictures_and_not_damaged_ones(folder, encoder):
    rows = rows_of(folder, shown("cut_a.jpg"), shown("none.jpg"), shown("text.png"))
    assert [bad.index for bad in find_bad(rows, encoder, whole=False)] == [1, 2]


def test_a_picture_too_long_to_be_padded_is_bad(tmp_path):
    config = tiny_config(image=ImageConfig(side=24, fit="pad", max_pixels=500))
    row = ChatRow("a:1", (Image.new("RGB", (40, 4)),), ())
    with pytest.raises(RowError, match=r"a:1: the picture of 40 x 4 pixels would be padded"):
        picture_sizes(row, Encoder(config, byte_tokenizer()))


def test_a_row_is_too_long_by_one_token(folder, encoder):
    row = rows_of(folder, shown("a.png"))[0]
    (prompt,) = encoder.row(row, [(90, 60)])
    length = len(prompt.input_ids)
    found = measure(row, encoder, length)
    assert found == (length, length, sum(label != IGNORE for label in prompt.labels), 1)
    with pytest.raises(RowError, match=rf"takes {length} tokens with its pictures, more than {length - 1}") as caught:
        measure(row, encoder, length - 1)
    assert caught.value.reason == "too long"


def test_tiles_count_towards_the_length(folder):
    row = rows_of(folder, shown("a.png"))[0]
    single, tiled = (
        Encoder(tiny_config(image=ImageConfig(side=24, **more)), byte_tokenizer())
        for more in ({}, {"layout": "tiles", "tiles_per_side": 2})
    )
    more = measure(row, tiled, 400).longest - measure(row, single, 400).longest
    assert more == 4 * single.config.tokens_per_view


def test_findings_count_good_rows_and_keep_the_order_of_bad_ones(folder, encoder):
    rows = rows_of(folder, shown("a.png"), TEXT, shown("none.png"), {"conversations": []}, shown("text.png"))
    findings = check_rows(rows, encoder)
    summary = findings.summary()
    lengths = [measure(rows[index], encoder, 400) for index in (0, 1)]
    assert [bad.index for bad in findings.bad] == [2, 3, 4]
    assert findings.good().tolist() == [0, 1]
    assert list(summary["bad"]) == ["missing picture", "order of roles", "broken picture"]
    assert summary["bad"]["order of roles"][0]["where"].endswith("rows.jsonl:4")
    assert {name: summary[name] for name in ("rows", "bad_rows", "pictures", "text_only_rows", "tokens_max")} == {
        "rows": 5,
        "bad_rows": 3,
        "pictures": 1,
        "text_only_rows": 1,
        "tokens_max": max(one.longest for one in lengths),
    }
    trained = sum(one.trained for one in lengths) / sum(one.tokens for one in lengths)
    assert summary["trained_share"] == pytest.approx(trained, abs=1e-4)
    nothing = check_rows(rows_of(folder, shown("none.png")), encoder).summary()
    assert nothing["tokens_max"] is nothing["trained_share"] is None


def test_workers_find_what_one_process_finds(folder, encoder):
    some = [shown("a.png"), TEXT, shown("none.png"), {"image": "a.png"}, shown("cut_a.jpg")]
    rows = rows_of(folder, *(some * (2 * CHUNK // len(some) + 1)))
    alone, together = (check_rows(rows, encoder, workers=workers) for workers in (0, 2))
    assert together.bad == alone.bad
    assert len(alone.bad) == 3 * len(rows) // 5
    np.testing.assert_array_equal(together.measures, alone.measures)


def test_what_is_to_be_said_about_a_good_row_is_said(folder, encoder):
    first, second = (Image.new("RGB", (9, 9), color) for color in ("red", "blue"))
    first.save(folder / "moves.gif", save_all=True, append_images=[second])
    findings = check_rows(rows_of(folder, shown("moves.gif")), encoder)
    ((where, note),) = findings.notes
    assert not findings.bad
    assert where.endswith("rows.jsonl:1")
    assert "several frames" in note


def test_samples_are_spread_over_the_good_rows(folder, encoder):
    findings = check_rows(rows_of(folder, TEXT, {}, *[TEXT] * 5), encoder)
    assert spread_samples(findings, 3) == [0, 3, 5]
    assert spread_samples(findings, 9) == [0, 2, 3, 4, 5, 6]


def test_a_prompt_shows_what_is_trained_and_what_is_read(encoder):
    turns = [ASKED, Turn("assistant", "a cat"), Turn("user", "Why?"), Turn("assistant", "{so}")]
    prompt = encoder.chat(turns, [(30, 20)])
    count = encoder.config.tokens_per_view
    assert colored(prompt, encoder.tokenizer, marks=True).plain == (
        f"Be brief. USER: (picture: {count})\n{{{{What?}}}}(queries of turn 1: 2) ASSISTANT:[[ a cat</s>]]"
        "USER: {{Why?}}(queries of turn 2: 2) ASSISTANT:[[ {so}</s>]]"
    )
    text = colored(prompt, encoder.tokenizer, marks=False)
    styles = {text.plain[span.start : span.end]: str(span.style) for span in text.spans}
    assert "green" in styles[" a cat</s>"]
    assert "underline" in styles["What?"]
    assert len({styles[part] for part in ("What?", " a cat</s>", "(queries of turn 1: 2)", "Be brief. USER: ")}) == 4
    assert all(span.style in {part.style for part in legend(False).spans} for span in text.spans)


def test_a_caption_is_both_trained_and_read(encoder):
    text = colored(encoder.plain("a cat", [(30, 20)]), encoder.tokenizer, marks=False)
    (span,) = [span for span in text.spans if text.plain[span.start : span.end] == "a cat"]
    assert "green" in str(span.style)
    assert "underline" in str(span.style)
    assert "[[{{a cat}}]]" in colored(encoder.plain("a cat", [(30, 20)]), encoder.tokenizer, marks=True).plain


# The command


def check(*words: object) -> Any:
    return CliRunner().invoke(app, ["data", "check", *map(str, words)])


def test_the_command_shows_rows_and_fails_for_bad_ones(folder):
    rows_of(folder, shown("a.png"), TEXT, *[shown("none.png")] * 21)
    result = check(folder / "rows.jsonl", "--workers", 0)
    assert result.exit_code == 1
    words = " ".join(result.stdout.split())
    assert "(picture: 9) {{What?}}(queries of turn 1: 9) ASSISTANT:[[ a cat</s>]]" in words
    assert "missing picture, 21:" in words
    assert "and 1 more" in words
    assert "rows.jsonl:3: there is no picture file" in words


def test_the_command_as_json(folder):
    rows_of(folder, {"image": "a.png", "caption": "a cat"}, {"image": "turned.jpg", "caption": "a dog"})
    words = (folder / "rows.jsonl", "--kind", "captions", "--workers", 0, "--json", "--samples", 1)
    result = check(*words, "--model", "preset:nano_hd", "--tokenizer", "nano")
    found = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (found["rows"], found["bad_rows"], found["pictures"]) == (2, 0, 2)
    assert found["tokens_max"] > 5 * nano_hd().tokens_per_view
    assert "[[{{a cat}}]]" in found["samples"][0]["text"]
    assert len(found["samples"]) == 1


def test_the_command_names_what_is_missing(folder):
    rows_of(folder, TEXT)
    assert "--tokenizer" in check(folder / "rows.jsonl", "--model", "preset:nano").stderr
    assert "kind" in check(folder / "rows.jsonl", "--kind", "talks").stderr
