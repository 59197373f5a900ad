"""A model asked a benchmark: side by side on the engine, with its eyes open and shut, each answer kept as it comes."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from saccade.engine import Engine
from saccade.engine.tickets import Ticket
from saccade.errors import DataError, ImageError, PromptError, SaccadeError
from saccade.evaluate.benchmarks.benchmark import Benchmark, Sample, Samples
from saccade.evaluate.bootstrap import BOOTSTRAP_DRAWS
from saccade.evaluate.conditions import ASKED, Question, conditions, render
from saccade.evaluate.fitting import fit
from saccade.evaluate.records import ROWS, Record, Row, write_record
from saccade.evaluate.world import BLANK_LEVEL
from saccade.image.transform import open_image
from saccade.vlm import Conversation, Sampling
from saccade.vlm.ledger import open_ledger

if TYPE_CHECKING:
    from saccade.vlm import VLM

# What is wrong with a sample; any other error is about the model or the options, and ends the run.
_OF_A_SAMPLE = (DataError, ImageError, PromptError)
BATCH_SIZE = 16
LENGTH = 4096  # tokens of a prompt and its answer; a decoder that holds fewer positions has its own limit
_AHEAD = 2  # samples on their way, for each that is in work: so many pictures are held in memory

Stage = Callable[[str, int, int], None]


def evaluate(
    vlm: VLM,
    benchmark: Benchmark,
    path: Path,
    out: Path,
    *,
    protocol: str | None = None,
    limit: int | None = None,
    max_new_tokens: int | None = None,
    batch_size: int = BATCH_SIZE,
    length: int = LENGTH,
    skip_bad: bool = False,
    command: str | None = None,
    progress: Stage | None = None,
) -> Record:
    """Ask a model all samples of a benchmark, with their pictures and with blank ones, and write the record.

    A folder belongs to one run: the same call goes on where an interrupted one stopped, and ends with the record that
    it would have written uninterrupted (in half precision up to rounding, see `VLM.ask_batch`).

    Args:
        vlm: The model.
        benchmark: The set.
        path: Its local copy.
        out: Folder of the record.
        protocol: How it is asked; the first of the set's if left out.
        limit: At most so many units, spread evenly over the set; their samples are asked whole.
        max_new_tokens: Most tokens of an answer. If left out the protocol's, or as many as `length` has room for behind
            the prompt, where those are fewer: the sample's row then says how many.
        batch_size: Questions side by side.
        length: Most tokens of a question, its pictures and its answer.
        skip_bad: Count samples that cannot be asked as wrong, and name them in the record, instead of stopping.
        command: What repeats the run, for the record.
        progress: Called with ("asking" or "resampling", done so far, in all).

    Raises:
        DataError: for an unknown protocol, a limit below 1, a set or a folder that cannot be used, and, unless they are
            skipped, the first sample whose picture cannot be read or whose prompt does not fit the model.
        ConfigError: for a bad number, or a model that the engine cannot run.
    """
    name = next(iter(benchmark.protocols)) if protocol is None else protocol
    samples = benchmark.read(path, name)
    questions = _questions(vlm, samples, limit)
    most = benchmark.protocols[name].max_new_tokens if max_new_tokens is None else max_new_tokens
    sampling = Sampling(max_new_tokens=most)
    engine = Engine(vlm, slots=batch_size, length=length)
    settings = conditions(engine, benchmark, name, questions, sampling)
    tell = progress or (lambda *_: None)
    with open_ledger(out / ROWS, settings, questions, ASKED) as ledger, engine:
        tell("asking", ledger.done, len(questions))
        todo = questions[ledger.done :]
        for asked in _ask_all(engine, samples, todo, sampling, _AHEAD * batch_size, shorten=max_new_tokens is None):
            if asked.error is not None and not skip_bad:
                raise _refusal(asked, benchmark) from asked.error
            ledger.append([_row(asked, benchmark)])
            tell("asking", ledger.done, len(questions))
        origin = {"model": vlm.name, "path": str(path), "limit": limit, "command": command}
        return write_record(
            out, benchmark, settings, origin, on_draw=lambda draws: tell("resampling", draws, BOOTSTRAP_DRAWS)
        )


@dataclass(eq=False)
class _Asked:
    """A question on its way: what was asked with the picture and with a blank one, or why it could not be.

    `max_new_tokens` is set where there was room for fewer than the protocol's.
    """

    question: Question
    pictures: list[str]
    max_new_tokens: int | None = None
    tickets: tuple[Ticket, ...] = ()
    error: SaccadeError | None = None

    def wait(self) -> None:
        """Wait for both answers."""
        try:
            for ticket in self.tickets:
                ticket.result()
        except _OF_A_SAMPLE as error:
            self.error = error


def _questions(vlm: VLM, samples: Sequence[Sample], limit: int | None) -> list[Question]:
    """Word the samples of a set, or of some of its units, as the model is asked them; no picture is read."""
    if limit is not None and limit < 1:
        raise DataError(f"limit is {limit}: ask at least 1 question")
    known = [(sample, 1) for sample, _ in samples.parts] if isinstance(samples, Samples) else _counted(samples)
    names = list(dict.fromkeys(sample.unit for sample, _ in known))
    share = len(names) if limit is None else min(limit, len(names))
    kept = {names[n * len(names) // share] for n in range(share)}
    return [
        Question(number, sample, render(sample.prompt, pictures, vlm.processor))
        for number, (sample, pictures) in enumerate(known)
        if sample.unit in kept
    ]


def _counted(samples: Sequence[Sample]) -> list[tuple[Sample, int]]:
    return [(sample, len(sample.pictures)) for sample in samples]


def _ask_all(
    engine: Engine,
    samples: Sequence[Sample],
    questions: Iterable[Question],
    sampling: Sampling,
    ahead: int,
    *,
    shorten: bool,
) -> Iterator[_Asked]:
    """Keep the engine busy, and yield the questions in order as they are answered."""
    waiting: deque[_Asked] = deque()
    try:
        for question in questions:
            waiting.append(_ask(engine, samples, question, sampling, shorten=shorten))
            if len(waiting) == ahead:
                waiting[0].wait()
                yield waiting.popleft()
        while waiting:
            waiting[0].wait()
            yield waiting.popleft()
    finally:
        for asked in waiting:
            for ticket in asked.tickets:
                ticket.cancel()


def _ask(engine: Engine, samples: Sequence[Sample], question: Question, sampling: Sampling, *, shorten: bool) -> _Asked:
    """Open the pictures of a sample and hand it to the engine; a sample without pictures is asked once.

    Where `shorten` is set, its answer is given no more tokens than there is room for behind the prompt.
    """
    most = engine.vlm.model.config.image.max_pixels
    try:
        shown = [open_image(picture, most) for picture in samples[question.number].pictures]
        talk = Conversation().ask(question.sample.prompt, shown)
        fitted = fit(sampling, engine, talk, [picture.size for picture in shown])
    except _OF_A_SAMPLE as error:
        return _Asked(question, [], error=error)
    blank = tuple(Image.new("RGB", picture.size, (BLANK_LEVEL,) * 3) for picture in shown)
    given = fitted if shorten else sampling
    fewer = None if given == sampling else given.max_new_tokens
    tickets = tuple(engine.submit(one, given) for one in ((talk, replace(talk, images=blank)) if blank else (talk,)))
    return _Asked(question, [_name(picture) for picture in shown], fewer, tickets)


def _refusal(asked: _Asked, benchmark: Benchmark) -> DataError:
    return DataError(
        f"sample {asked.question.sample.key!r} of {benchmark.title} cannot be asked: {asked.error}; or ask with "
        "--skip-bad, which counts it as wrong"
    )


def _name(picture: Image.Image) -> str:
    """Return what no picture of other pixels is called."""
    return hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).hexdigest()[:16]


def _row(asked: _Asked, benchmark: Benchmark) -> Row:
    """Return the line of a sample; the answers to one that could not be asked are wrong."""
    sample, row = asked.question.sample, {**asked.question.row(), "pictures": asked.pictures}
    if asked.max_new_tokens is not None:
        row["max_new_tokens"] = asked.max_new_tokens
    if asked.error is not None:
        wrong: dict[str, Any] = {**benchmark.judge(sample, ""), "score": 0.0}
        error = {"type": type(asked.error).__name__, "message": str(asked.error)}
        return {
            **row, "said": "", "finish_reason": "error", "judged": wrong, "said_blind": "", "judged_blind": wrong,
            "error": error,
        }  # fmt: skip
    said, blind = asked.tickets[0].result(), asked.tickets[-1].result()
    return {
        **row,
        "said": said.text,
        "finish_reason": said.finish_reason,
        "judged": benchmark.judge(sample, said.text),
        "said_blind": blind.text,
        "judged_blind": benchmark.judge(sample, blind.text),
    }
