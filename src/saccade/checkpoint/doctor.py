"""Proof that a loaded model is what its files say, and that what comes out of it makes sense."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saccade.checkpoint.files import CONFIG_FILE, first_line, listed, read_json, read_tensors
from saccade.checkpoint.layouts import Layout, find_layout
from saccade.checkpoint.load import LAYOUTS
from saccade.checkpoint.questions import Progress, answer
from saccade.checkpoint.samples import Sample, asked, model_inputs, smooth_picture, turned_picture
from saccade.errors import CheckpointError, SaccadeError
from saccade.image.processor import SaccadeProcessor
from saccade.model import SaccadeForConditionalGeneration
from saccade.prompt import encode, parse_messages, render_chat
from saccade.prompt.encode import end_token_id, token_id
from saccade.roles import TEXT

_ROUNDING = 4  # machine epsilons
_SUMMING = 1e-4  # what another order of summation may change


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What was looked at.
        passed: Whether it is as it should be, None where that could not be decided.
        detail: What was found, and the remedy where it did not pass.
    """

    name: str
    passed: bool | None
    detail: str


def examine(
    model: SaccadeForConditionalGeneration,
    processor: SaccadeProcessor,
    folder: Path,
    *,
    layouts: Sequence[Layout] = LAYOUTS,
    samples: Sequence[Sample] = (),
    progress: Progress | None = None,
) -> Iterator[Check]:
    """Yield one check after the other; a check that fails does not stop the next.

    Of a released checkpoint follow what its files say beside its tensors, and what they leave open.

    Args:
        model: The model as it was loaded.
        processor: Its processor.
        folder: The checkpoint that both were loaded from, native or released.
        layouts: Released layouts to recognize beside the native one.
        samples: Pictures with text, on which questions that the files leave open are decided.
        progress: Told how many steps of how many are done, first of comparing tensors, then of each such question.
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
    yield from _released(files, processor, samples)


def _tried(name: str, check: Callable[[], str | tuple[bool | None, str]]) -> Check:
    try:
        found = check()
        return Check(name, True, found) if isinstance(found, str) else Check(name, *found)
    except SaccadeError as error:
        return Check(name, False, str(error))
    except Exception as error:  # noqa: BLE001  (whatever fails is a finding)
        return Check(name, False, f"{type(error).__name__}: {first_line(error)}")


def _released(files: _Files, processor: SaccadeProcessor, samples: Sequence[Sample]) -> Iterator[Check]:
    """What the files of a release say beside its tensors, and what they leave open."""
    try:
        layout, stored = files.layout, files.stored
    except SaccadeError:  # told above, where the tensors are compared
        return
    if layout is None:
        return
    for name, fact in layout.facts(files.folder, stored, processor.tokenizer):
        yield _tried(name, fact)
    for question in layout.questions(files.model.config):
        yield _tried(question.name, partial(answer, question, files.model, processor, samples, files.progress))


@dataclass(frozen=True)
class _Files:
    """The tensors in memory beside those in the files, under our names."""

    model: SaccadeForConditionalGeneration
    folder: Path
    layouts: Sequence[Layout]
    progress: Progress | None

    @cached_property
    def layout(self) -> Layout | None:
        """The released layout of the folder, None for a native one."""
        return find_layout(read_json(self.folder / CONFIG_FILE), self.theirs, self.layouts, self.folder)

    @cached_property
    def theirs(self) -> dict[str, Tensor]:
        return read_tensors(self.folder)

    @cached_property
    def stored(self) -> dict[str, Tensor]:
        return self.layout.table.to_ours(self.theirs) if self.layout else self.theirs

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
        left_out = self.layout.table.unused(self.theirs) if self.layout else []
        size = sum(self.theirs[name].numel() for name in left_out)
        rest = f", {len(left_out)} without a use left out: {listed(left_out)} ({size} parameters)" if left_out else ""
        return f"{len(self.theirs)} tensors in {self.folder}{rest}"

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
        first, second = smooth_picture(self.config.image), turned_picture(self.config.image)
        answered = {"role": "assistant", "content": "A test."}
        messages = [asked("What is this?", first), answered, asked("And this?", second)]
        pictures = [self.processor.picture_segments(*picture.size) for picture in (first, second)]
        segments = render_chat(parse_messages(messages), self.config.prompt, generate=True)
        row = encode(segments, self.processor.tokenizer, pictures)
        inputs = model_inputs(self.processor, [messages])
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
        self._first = [asked("What is this?", smooth_picture(model.config.image))]
        self._turned = turned_picture(model.config.image)

    @cached_property
    def _inputs(self) -> dict[str, Tensor]:
        return model_inputs(self._processor, [self._first])

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
        other = self._run(model_inputs(self._processor, [[asked("What is this?", self._turned)]]))
        if torch.equal(other, self._alone):
            raise CheckpointError("two pictures give the same logits: the model does not see what it is shown")
        return f"differ by {_difference(other, self._alone):.1e}"

    def batched(self) -> str:
        """Each of two rows of its own length and with a picture of its own, beside the other and alone."""
        longer = "Is this picture, which no camera took, lighter on its left side or on its right side?"
        talks = [self._first, [asked(longer, self._turned)]]
        alone = torch.cat([self._alone, self._run(model_inputs(self._processor, talks[1:]))])
        together = self._run(model_inputs(self._processor, talks))
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
