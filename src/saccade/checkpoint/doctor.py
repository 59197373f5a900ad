"""Proof that a loaded model is what its files say, and that what comes out of it makes sense."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from saccade.checkpoint.files import CONFIG_FILE, first_line, listed, read_json, read_tensors
from saccade.checkpoint.layouts import Layout
from saccade.checkpoint.load import LAYOUTS
from saccade.errors import CheckpointError, SaccadeError
from saccade.image.processor import SaccadeProcessor
from saccade.model import SaccadeForConditionalGeneration
from saccade.prompt import encode, parse_messages, render_chat
from saccade.prompt.encode import end_token_id, token_id
from saccade.roles import TEXT

Progress = Callable[[int, int], None]

_ROUNDING = 4  # machine epsilons
_SUMMING = 1e-4  # what another order of summation may change


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What was looked at.
        passed: Whether it is as it should be.
        detail: What was found, and the remedy where it did not pass.
    """

    name: str
    passed: bool
    detail: str


def examine(
    model: SaccadeForConditionalGeneration,
    processor: SaccadeProcessor,
    folder: Path,
    *,
    layouts: Sequence[Layout] = LAYOUTS,
    progress: Progress | None = None,
) -> Iterator[Check]:
    """Yield one check after the other; a check that fails does not stop the next.

    Args:
        model: The model as it was loaded.
        processor: Its processor.
        folder: The checkpoint that both were loaded from, native or released.
        layouts: Released layouts to recognize beside the native one.
        progress: Told how many tensors of how many are compared.
    """
    files, probe = _Files(model, folder, layouts, progress), _Probe(model, processor)
    words = _Words(model.config, model.generation_config, processor)
    checks: tuple[tuple[str, Callable[[], str]], ...] = (
        ("nothing re-initialized", files.complete),
        ("nothing unused", files.used),
        ("tensors equal the file's", files.equal),
        ("placeholders", words.placeholders),
        ("template and pictures", words.settings),
        ("end of answers", words.end),
        ("segments and string agree", words.round_trip),
        ("logits are finite", probe.finite),
        ("same input, same logits", probe.repeatable),
        ("another picture, other logits", probe.seeing),
        ("batched as single", probe.batched),
        ("cached as uncached", probe.cached),
    )
    for name, check in checks:
        yield _tried(name, check)


def _tried(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, True, check())
    except SaccadeError as error:
        return Check(name, False, str(error))
    except Exception as error:  # noqa: BLE001  (whatever fails is a finding)
        return Check(name, False, f"{type(error).__name__}: {first_line(error)}")


@dataclass(frozen=True)
class _Files:
    """The tensors in memory beside those in the files, under our names."""

    model: SaccadeForConditionalGeneration
    folder: Path
    layouts: Sequence[Layout]
    progress: Progress | None

    @cached_property
    def stored(self) -> dict[str, Tensor]:
        config_json, tensors = read_json(self.folder / CONFIG_FILE), read_tensors(self.folder)
        layout = next((layout for layout in self.layouts if layout.recognizes(config_json)), None)
        return {layout.rename_to_ours(name): tensors[name] for name in tensors} if layout else tensors

    @cached_property
    def loaded(self) -> dict[str, Tensor]:
        return dict(self.model.state_dict())

    def complete(self) -> str:
        """Every tensor in memory comes from a file, by itself or because it is tied to one that does."""
        places = {tensor.data_ptr() for name, tensor in self.loaded.items() if name in self.stored}
        absent = self.loaded.keys() - self.stored.keys()
        made_up = sorted(name for name in absent if self.loaded[name].data_ptr() not in places)
        if made_up:
            raise CheckpointError(f"no file holds {listed(made_up)}: download or save the checkpoint again")
        return f"{len(self.loaded)} tensors, {len(absent)} of them tied to others"

    def used(self) -> str:
        unused = sorted(self.stored.keys() - self.loaded.keys())
        if unused:
            raise CheckpointError(f"the model has no place for {listed(unused)}: use the config.json of these tensors")
        return f"{len(self.stored)} tensors in {self.folder}"

    def equal(self) -> str:
        """SHA-256 of the bytes in memory and of the bytes in the file after the cast to the type in memory."""
        whole, different = hashlib.sha256(), []
        names = sorted(self.loaded.keys() & self.stored.keys())
        for number, name in enumerate(names, 1):
            ours, theirs = self.loaded[name], self.stored[name]
            checksum = _checksum(ours)
            whole.update(f"{name} {checksum}\n".encode())
            if ours.shape != theirs.shape or checksum != _checksum(theirs.to(ours.dtype)):
                different.append(name)
            if self.progress is not None:
                self.progress(number, len(names))
        if different:
            raise CheckpointError(
                f"{len(different)} of {len(names)} differ from the file: {listed(different)}; load the model again"
            )
        types = {name: sorted({_dtype(tensor) for tensor in side.values()}) for name, side in self._sides().items()}
        return f"{len(names)}, {'/'.join(types['file'])} as {'/'.join(types['memory'])}, sha256 {whole.hexdigest()}"

    def _sides(self) -> dict[str, dict[str, Tensor]]:
        return {"file": self.stored, "memory": self.loaded}


@dataclass(frozen=True)
class _Words:
    """The processor beside the configuration."""

    config: Any
    generation_config: Any
    processor: SaccadeProcessor

    def placeholders(self) -> str:
        processor, tokenizer, said = self.processor, self.processor.tokenizer, []
        for kind in ("image", "query"):
            spelling, wanted = getattr(self.config.prompt, f"{kind}_token"), getattr(self.config, f"{kind}_token_id")
            if spelling is None:
                continue
            for reader, found in (
                ("tokenizer", token_id(spelling, tokenizer)),
                ("processor", getattr(processor, f"{kind}_token_id")),
            ):
                if found != wanted:
                    raise CheckpointError(
                        f"config.{kind}_token_id is {wanted}, but the {reader} writes {spelling} as {found}: use the "
                        "tokenizer that was saved with the model"
                    )
            said.append(f"{spelling} is {wanted}")
        rows = self.config.text_config.vocab_size
        if len(tokenizer) > rows:
            raise CheckpointError(
                f"the tokenizer has {len(tokenizer)} tokens but the model {rows} embeddings: use the tokenizer that "
                "was saved with the model"
            )
        return f"{', '.join(said)}; {len(tokenizer)} tokens for {rows} embeddings"

    def settings(self) -> str:
        pictures = self.processor.image_processor
        for name, ours, theirs in (
            ("prompt", self.config.prompt, self.processor.prompt),
            ("image", self.config.image, pictures.config),
            ("tokens per view", self.config.tokens_per_view, pictures.tokens_per_view),
        ):
            if ours != theirs:
                raise CheckpointError(
                    f"{name}: the processor says {theirs}, the model {ours}; take both files from one checkpoint"
                )
        return f"processor and model agree; {pictures.tokens_per_view} tokens for a view of {pictures.side} pixels"

    def end(self) -> str:
        tokenizer, stops = self.processor.tokenizer, self.generation_config.eos_token_id
        found = end_token_id(tokenizer, self.config.prompt)
        spelling = tokenizer.convert_ids_to_tokens(found)
        if found not in (stops if isinstance(stops, list) else [stops]):
            raise CheckpointError(
                f"answers end with {spelling} ({found}), but generation_config.json stops at {stops}: set its "
                f"eos_token_id to {found}"
            )
        return f"{spelling} is {found}, where generation stops"

    def round_trip(self) -> str:
        """A conversation rendered as segments and as a string gives one row of ids and roles."""
        messages = [_asked("What is this?"), {"role": "assistant", "content": "A test."}, _asked("And this?")]
        tokens = self.processor.image_processor.num_image_tokens(*_picture().size)
        segments = render_chat(parse_messages(messages), self.config.prompt, generate=True)
        row = encode(segments, self.processor.tokenizer, [tokens, tokens])
        inputs = _inputs(self.processor, [messages])
        for name, wanted in (("input_ids", row.input_ids), ("mm_token_type_ids", row.roles)):
            if inputs[name][0].tolist() != wanted:
                raise CheckpointError(
                    f"the chat template gives other {name} than the prompt configuration: delete chat_template.jinja, "
                    "so that it is written anew"
                )
        return f"{len(row.input_ids)} ids and their roles are the same"


class _Probe:
    """What the model computes for a synthetic picture; each output is the logits after a question, `[rows, vocab]`."""

    def __init__(self, model: SaccadeForConditionalGeneration, processor: SaccadeProcessor) -> None:
        self._model, self._processor = model, processor

    @cached_property
    def _inputs(self) -> dict[str, Tensor]:
        return _inputs(self._processor, [[_asked("What is this?")]])

    @cached_property
    def _alone(self) -> Tensor:
        return self._run(self._inputs)

    def finite(self) -> str:
        wrong = int((~self._alone.isfinite()).sum())
        if wrong:
            raise CheckpointError(f"{wrong} of {self._alone.numel()} logits are not finite: try another dtype")
        return f"{self._alone.numel()} logits, from {self._alone.min():.2f} to {self._alone.max():.2f}"

    def repeatable(self) -> str:
        if not torch.equal(self._run(self._inputs), self._alone):
            raise CheckpointError("two runs give different logits: put the model into evaluation mode")
        return "equal to the last bit"

    def seeing(self) -> str:
        other = self._run(_inputs(self._processor, [[_asked("What is this?", _turned())]]))
        if torch.equal(other, self._alone):
            raise CheckpointError("two pictures give the same logits: the model does not see what it is shown")
        return f"differ by {_difference(other, self._alone):.1e}"

    def batched(self) -> str:
        """Each of two rows of its own length and with a picture of its own, beside the other and alone."""
        longer = "Is this picture, which no camera took, lighter on its left side or on its right side?"
        talks = [[_asked("What is this?")], [_asked(longer, _turned())]]
        alone = torch.cat([self._alone, self._run(_inputs(self._processor, talks[1:]))])
        together = self._run(_inputs(self._processor, talks))
        return self._close(together, alone, "a row gets other logits beside another")

    def cached(self) -> str:
        token = self._alone.argmax(-1, keepdim=True)
        longer = {
            **self._inputs,
            "input_ids": torch.cat([self._inputs["input_ids"], token], 1),
            "attention_mask": torch.cat([self._inputs["attention_mask"], torch.ones_like(token)], 1),
            "mm_token_type_ids": torch.cat([self._inputs["mm_token_type_ids"], torch.full_like(token, TEXT)], 1),
        }
        with torch.inference_mode():
            model: Any = self._model
            cache = model(**self._on_device(self._inputs), use_cache=True).past_key_values
            step = model(input_ids=token.to(model.device), past_key_values=cache).logits[:, -1].float().cpu()
        return self._close(step, self._run(longer), "a cached step gives other logits than the whole prompt")

    def _run(self, inputs: dict[str, Tensor]) -> Tensor:
        positions = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)  # rows are padded on the left
        with torch.inference_mode():
            model: Any = self._model
            logits: Tensor = model(**self._on_device({**inputs, "position_ids": positions})).logits[:, -1]
        return logits.float().cpu()

    def _on_device(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.to(self._model.device) for name, tensor in inputs.items()}

    def _close(self, found: Tensor, wanted: Tensor, complaint: str) -> str:
        """Compare up to what rounding explains, relative to the largest logit.

        In half precision that is a few units of the last place; in float32, sums in another order are what differs.
        """
        limit, difference = max(_ROUNDING * torch.finfo(self._model.dtype).eps, _SUMMING), _difference(found, wanted)
        if not difference <= limit:
            raise CheckpointError(f"{complaint}: they differ by {difference:.1e}, more than {limit:.1e}")
        return f"differ by {difference:.1e}, at most {limit:.1e} is rounding"


def _difference(found: Tensor, wanted: Tensor) -> float:
    """Return the largest difference, relative to the largest logit."""
    return float((found - wanted).abs().max() / wanted.abs().max())


def _checksum(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data).hexdigest()


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _picture() -> Image.Image:
    """A smooth picture with an edge, wider than high."""
    y, x = np.mgrid[:40, :61]
    return Image.fromarray(np.stack([4 * x, 6 * y, 255 * (x > y)], axis=2).astype(np.uint8))


def _turned() -> Image.Image:
    """Another picture, higher than wide."""
    return _picture().transpose(Image.Transpose.ROTATE_90)


def _asked(text: str, picture: Image.Image | None = None) -> dict[str, Any]:
    shown = {"type": "image", "image": picture or _picture()}
    return {"role": "user", "content": [shown, {"type": "text", "text": text}]}


def _inputs(processor: SaccadeProcessor, conversations: list[Any]) -> dict[str, Tensor]:
    """Return the model's inputs by the way of the chat template's string, padded on the left."""
    batch: Any = processor.apply_chat_template(
        conversations,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, "padding_side": "left"},
    )
    return {name: batch[name] for name in ("input_ids", "attention_mask", "mm_token_type_ids", "pixel_values")}
