"""The face of the package: a model and its processor as something that can be asked.

vlm = saccade.load()
print(vlm.ask("photo.jpg", "What color is the circle?"))
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Unpack

import numpy as np
import torch

from saccade.config import ImageConfig, to_part
from saccade.errors import ConfigError
from saccade.explain import Explanation, explain
from saccade.image.transform import ImageSource, normalize, open_image, to_views
from saccade.vlm.answers import Answer, Stopwatch
from saccade.vlm.chat import Chat, Conversation
from saccade.vlm.choosing import Choice, check_options, choose
from saccade.vlm.frames import choose_frames
from saccade.vlm.generation import Sampling, SamplingOptions, generate
from saccade.vlm.inputs import CutImage, EncodedImage, Picture, batch_inputs
from saccade.vlm.streaming import Background, Event

if TYPE_CHECKING:
    from saccade.image.processor import SaccadeProcessor
    from saccade.model import SaccadeForConditionalGeneration

Request = tuple[Picture | None, str]


def load(
    source: str | PathLike[str] = "nano",
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    max_pixels: int | None = None,
) -> VLM:
    """Open a model.

    Args:
        source: A model inside this package, such as "nano", a folder, or a hub id. Folders and hub ids may hold a model
            saved by this package or a released checkpoint.
        device: Where it runs; CUDA when there is one, else the CPU.
        dtype: Its precision, such as "bfloat16". None takes the checkpoint's own on an accelerator, and float32 on a
            CPU, where half precision is slow; name one where float32 weights do not fit the memory.
        max_pixels: Refuse pictures of more pixels; None keeps the limit of the model's configuration. Pillow's own, see
            `open_image`, holds beside it.

    Raises:
        CheckpointError: when there is no such model or it is not whole.
        ConfigError: for an unknown dtype or a limit below 1.
    """
    from saccade.checkpoint import open_checkpoint

    dtype = parse_dtype(dtype)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype is None and torch.device(device).type == "cpu":
        dtype = torch.float32
    model, processor = open_checkpoint(source, dtype=dtype, device=device)
    if max_pixels is not None:
        limited = {**model.config.image.model_dump(), "max_pixels": max_pixels}
        model.config.image = to_part("image", ImageConfig, limited)
        processor.image_processor.max_pixels = max_pixels
    return VLM(model, processor, name=str(source))


def parse_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """Return the dtype of a name such as "bfloat16".

    Raises:
        ConfigError: for a name that is none of torch's.
    """
    if not isinstance(dtype, str):
        return dtype
    found = getattr(torch, dtype, None)
    if not isinstance(found, torch.dtype):
        raise ConfigError(f"dtype {dtype!r} is not one of torch's: use float32, bfloat16 or float16")
    return found


class VLM:
    """A model and its processor, ready for questions.

    Every way of asking takes pictures as a path, bytes, a Pillow picture, an array (`[height, width]` or
    `[height, width, 3 or 4]` uint8), or an `EncodedImage`; and as options the fields of `Sampling`. It raises
    ImageError for a picture that cannot be read, PromptError for a conversation that cannot be rendered or does not fit
    the model, and ConfigError for a bad option.

    Attributes:
        model: The model, in evaluation mode.
        processor: Its processor.
        name: What it was loaded as.
    """

    def __init__(self, model: SaccadeForConditionalGeneration, processor: SaccadeProcessor, name: str = "") -> None:
        self.model = model.eval()
        self.processor = processor
        self.name = name

    @property
    def description(self) -> str | None:
        """One line that says what the model knows, when its configuration has one."""
        description: str | None = self.model.config.description
        return description

    def ask(self, image: Picture | None, question: str, **options: Unpack[SamplingOptions]) -> Answer:
        """Answer a question about a picture; None asks without one."""
        return self.ask_batch([(image, question)], **options)[0]

    def ask_batch(self, requests: Sequence[Request], **options: Unpack[SamplingOptions]) -> list[Answer]:
        """Answer (picture, question) pairs as one left-padded batch.

        In float32, greedy answers equal those given one by one. In half precision rounding depends on the shape of the
        batch, and may now and then tip the scales between two words that are nearly equally likely. A picture given as
        the same object in several pairs goes through the tower once.
        """
        return self.answer([_single(image, question) for image, question in requests], Sampling(**options))

    def ask_frames(
        self, frames: Iterable[Picture], question: str, *, max_visual_tokens: int, **options: Unpack[SamplingOptions]
    ) -> Answer:
        """Answer a question about the frames of a video, shown in order as the pictures of one message.

        Frames that do not fit `max_visual_tokens` are left out evenly, with a SaccadeWarning; see `choose_frames`.
        """
        sampling, stopwatch = Sampling(**options), Stopwatch(self.model.device)
        shown = choose_frames(self, frames, max_visual_tokens, stopwatch=stopwatch, stacklevel=3)
        return self.answer([Conversation().ask(question, shown)], sampling, stopwatch=stopwatch)[0]

    def stream(self, image: Picture | None, question: str, **options: Unpack[SamplingOptions]) -> Iterator[Event]:
        """Answer like `ask`, piece by piece; the last event carries the `Answer`."""
        return self.stream_answer(_single(image, question), Sampling(**options))

    def choose(self, image: Picture | None, question: str, options: Iterable[str]) -> Choice:
        """Say how likely each of the given answers is; see `saccade.vlm.choosing.choose`."""
        offered = check_options(options)
        return choose(
            self.model, self.processor, question, self.encode_batch([] if image is None else [image]), offered
        )

    def explain(self, image: ImageSource, question: str, **options: Unpack[SamplingOptions]) -> Explanation:
        """Answer like `ask`, and say what the answer, the compressor and the query module looked at.

        Takes the picture itself: an `EncodedImage` has no pixels to draw on, and without a picture nothing was looked
        at. Both are refused with an ImageError.
        """
        sampling = Sampling(**options)
        picture = open_image(image, self.model.config.image.max_pixels)
        shown = self.encode(picture)
        conversation = Conversation().ask(question, (shown,))
        answer = self.answer([conversation], sampling)[0]
        inputs = batch_inputs([conversation], [shown], self.processor)
        return explain(
            self.model,
            self.processor.tokenizer,
            picture,
            inputs,
            question=question,
            answer=answer.text,
            answer_ids=answer.token_ids,
        )

    def chat(self) -> Chat:
        """Start a conversation that remembers its turns and pictures."""
        return Chat(self)

    def encode(self, image: Picture) -> EncodedImage:
        """Run the tower on a picture, for any number of questions afterwards."""
        return self.encode_batch([image])[0]

    def cut(self, image: ImageSource, *, stopwatch: Stopwatch | None = None) -> CutImage:
        """Open a picture and cut it to what the tower takes, for `encode_batch`."""
        config, stopwatch = self.model.config.image, stopwatch or Stopwatch(self.model.device)
        with stopwatch.stage("open"):
            opened = open_image(image, config.max_pixels)
        with stopwatch.stage("preprocess"):
            return CutImage(to_views(opened, config), opened.size)

    def encode_batch(
        self, images: Sequence[Picture | CutImage], *, stopwatch: Stopwatch | None = None
    ) -> list[EncodedImage]:
        """Run the tower once on all pictures that are not encoded yet, each object once."""
        fresh = {id(image): image for image in images if not isinstance(image, EncodedImage)}
        seen = self._see(list(fresh.values()), stopwatch or Stopwatch(self.model.device)) if fresh else []
        encoded = dict(zip(fresh, seen, strict=True))
        return [image if isinstance(image, EncodedImage) else encoded[id(image)] for image in images]

    def answer(
        self,
        conversations: Sequence[Conversation],
        sampling: Sampling,
        *,
        stopwatch: Stopwatch | None = None,
        on_text: Callable[[list[str]], None] | None = None,
        stop: threading.Event | None = None,
    ) -> list[Answer]:
        """Answer the last turn of each conversation in one batch; every way of asking ends here.

        Args:
            conversations: What was said, pictures included.
            sampling: How tokens are chosen.
            stopwatch: Holds stages already measured for this call.
            on_text: Called after every step with each row's new text.
            stop: Ends generation early when set.
        """
        if not conversations:
            return []
        stopwatch = stopwatch or Stopwatch(self.model.device)
        pictures = self.encode_batch([image for talk in conversations for image in talk.images], stopwatch=stopwatch)
        with stopwatch.stage("prompt"):
            inputs = batch_inputs(conversations, pictures, self.processor)
            inputs = {name: tensor.to(self.model.device) for name, tensor in inputs.items()}
        return generate(self.model, self.processor, inputs, sampling, stopwatch=stopwatch, on_text=on_text, stop=stop)

    def stream_answer(
        self, conversation: Conversation, sampling: Sampling, *, stopwatch: Stopwatch | None = None
    ) -> Iterator[Event]:
        """Answer the last turn of a conversation piece by piece; leaving the iteration early ends the generation."""

        def work(put: Callable[[Event], None], stop: threading.Event) -> None:
            def tell(texts: list[str]) -> None:
                put(Event(texts[0]))

            answers = self.answer([conversation], sampling, stopwatch=stopwatch, on_text=tell, stop=stop)
            put(Event("", answers[0]))

        return iter(Background(work))

    def _see(self, images: Sequence[ImageSource | CutImage], stopwatch: Stopwatch) -> list[EncodedImage]:
        """Cut pictures one after the other, so that one at a time is there at its full size, and encode them."""
        config = self.model.config
        cut = [image if isinstance(image, CutImage) else self.cut(image, stopwatch=stopwatch) for image in images]
        with stopwatch.stage("preprocess"):
            views = np.concatenate([image.views for image in cut])
            pixels = torch.from_numpy(normalize(views, config.image)).to(self.model.device)
        with stopwatch.stage("vision"), torch.no_grad():
            patches = self.model.model.encode_views(pixels).split([len(image.views) for image in cut])
        return [
            EncodedImage(
                patches=rows.clone(),  # a slice would keep the whole batch alive
                size=image.size,
                num_tokens=len(image.views) * config.tokens_per_view,
                key=image.key(config.image),
            )
            for rows, image in zip(patches, cut, strict=True)
        ]


def _single(image: Picture | None, question: str) -> Conversation:
    return Conversation().ask(question, () if image is None else (image,))
