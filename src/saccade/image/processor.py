"""Pictures and conversations as transformers hands them over: an image processor, a processor that expands prompts.

Both follow the contract of transformers 5: `__call__` of the processor is the library's own, and what is particular
here comes in through its hooks.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import load_image
from transformers.processing_utils import MultiModalData, ProcessingKwargs, ProcessorMixin

from saccade.config import ImageConfig, PromptConfig, SaccadeConfig, to_part
from saccade.errors import ConfigError, ImageError, PlaceholderMismatchError
from saccade.image.geometry import num_image_tokens, num_views, view_rows
from saccade.image.transform import ImageSource, normalize, open_image, to_views
from saccade.prompt.encode import special_tokens
from saccade.prompt.jinja import chat_template as jinja_template
from saccade.prompt.recover import roles_from_ids
from saccade.prompt.render import Segment, picture_segments


class SaccadeImageProcessor(BaseImageProcessor):
    """Turns pictures into normalized views.

    Args:
        side: Side of a view in pixels.
        tokens_per_view: Visual tokens of one view.
        **kwargs: The other fields of `ImageConfig`, and what transformers keeps beside them in a saved file.

    Raises:
        ConfigError: when a value is not valid.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012

    def __init__(self, side: int, tokens_per_view: int, **kwargs: Any) -> None:
        given = {name: kwargs.pop(name) for name in ImageConfig.model_fields if name in kwargs}
        super().__init__(**kwargs)
        self.tokens_per_view = tokens_per_view
        config = to_part("the image processor", ImageConfig, {"side": side, **given})
        for name, value in config.model_dump(mode="json").items():
            setattr(self, name, value)

    @property
    def config(self) -> ImageConfig:
        """The same settings as a frozen configuration."""
        fields = {name: getattr(self, name) for name in ImageConfig.model_fields}
        return to_part("the image processor", ImageConfig, fields)

    def num_image_tokens(self, width: int, height: int) -> int:
        """Count the visual tokens of a picture of `width` x `height` pixels."""
        return num_image_tokens(width, height, self.config, self.tokens_per_view)

    def fetch_images(self, image_url_or_urls: Any) -> Any:
        """Open pictures, keeping how they are nested; an address or a data URI is fetched first."""
        if isinstance(image_url_or_urls, list | tuple):
            return [self.fetch_images(source) for source in image_url_or_urls]
        return open_image(_fetched(image_url_or_urls), self.config.max_pixels)

    def __call__(  # type: ignore[override]
        self, images: Any, return_tensors: str | None = None
    ) -> BatchFeature:
        """Return the views of one picture or of several, nested or not.

        Args:
            images: What `open_image` opens, or lists of it.
            return_tensors: "pt", "np" or None for lists of arrays.

        Returns:
            `pixel_values` `[views of all pictures, 3, side, side]`, float32, and for every picture `num_views` and
            `image_sizes`, its height and width in pixels.

        Raises:
            ImageError: when there is no picture, or one cannot be read.
        """
        opened = _flat(self.fetch_images(images))
        if not opened:
            raise ImageError("there is no picture in the list: give at least one")
        views = [to_views(image, self.config) for image in opened]
        pixels = normalize(np.concatenate(views), self.config)
        counted = {
            "num_views": [len(v) for v in views],
            "image_sizes": [(image.height, image.width) for image in opened],
        }
        return BatchFeature({"pixel_values": pixels, **counted}, tensor_type=return_tensors)


class SaccadeProcessorKwargs(ProcessingKwargs, total=False):
    """Defaults of a call: only what the model takes."""

    _defaults = {  # type: ignore[misc]  # noqa: RUF012
        "text_kwargs": {
            "padding": False,
            "add_special_tokens": False,
            "return_token_type_ids": False,
            "return_mm_token_type_ids": True,
        },
    }


class SaccadeProcessor(ProcessorMixin):
    """Expands the pictures of a rendered conversation, tokenizes it and gives each token its role.

    `mm_token_type_ids` hold the roles of `saccade.roles`.

    Args:
        image_processor: Prepares the pictures.
        tokenizer: A byte-level tokenizer that knows the placeholders.
        prompt: The template; as plain data when it is loaded from a file.
        chat_template: The template in Jinja; made from `prompt` when it is not given.

    Attributes:
        image_token: Spelling of a visual token.
        image_token_id: Its id.
        query_token: Spelling of a query token, None for models without embedded queries.
        query_token_id: Its id, None for models without.

    Raises:
        ConfigError: when the template is not valid or the tokenizer does not know its placeholders.
    """

    valid_processor_kwargs = SaccadeProcessorKwargs
    return_mm_token_type_ids = True

    def __init__(
        self,
        image_processor: SaccadeImageProcessor,
        tokenizer: Any,
        prompt: PromptConfig | dict[str, Any] | None = None,
        chat_template: str | None = None,
    ) -> None:
        self.prompt = to_part("the prompt of the processor", PromptConfig, prompt or {})
        self.image_token = self.prompt.image_token
        self.image_token_id = _placeholder_id(self.image_token, tokenizer)
        self.query_token = self.prompt.query_token
        self.query_token_id = None if self.query_token is None else _placeholder_id(self.query_token, tokenizer)
        if chat_template is None:
            chat_template = jinja_template(self.prompt, special_tokens(tokenizer).values())
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    def picture_segments(self, width: int, height: int) -> list[Segment]:
        """Return what stands in a prompt for a picture of `width` x `height` pixels."""
        pictures = self.image_processor
        return picture_segments(view_rows(width, height, pictures.config), pictures.tokens_per_view, self.prompt)

    def replace_image_token(self, image_inputs: Any, image_idx: int, **_: Any) -> str:
        """Return what stands in a prompt for the picture at `image_idx`, with one placeholder per visual token."""
        height, width = map(int, image_inputs["image_sizes"][image_idx])
        return "".join(segment.text * segment.count for segment in self.picture_segments(width, height))

    def _get_num_multimodal_tokens(
        self, image_sizes: Sequence[Sequence[int]] | None = None, **_: Any
    ) -> MultiModalData:
        """Count the visual tokens and views of pictures given as (height, width); read by serving engines.

        The template's texts around tiles are no visual tokens and are not counted.
        """
        if image_sizes is None:
            return MultiModalData()
        config = self.image_processor.config
        return MultiModalData(
            num_image_tokens=[self.image_processor.num_image_tokens(width, height) for height, width in image_sizes],
            num_image_patches=[num_views(width, height, config) for height, width in image_sizes],
        )

    def create_mm_token_type_ids(self, input_ids: Any) -> list[list[int]]:
        """Return the roles of tokenized prompts, `[batch][seq]`.

        Raises:
            PlaceholderMismatchError: when query tokens do not form a set.
            PromptError: when a prompt does not follow the template.
        """
        rows = (row if isinstance(row, list) else row.tolist() for row in input_ids)
        return [roles_from_ids(row, self.tokenizer, self.prompt) for row in rows]

    def validate_inputs(
        self, images: Any = None, text: Any = None, videos: Any = None, audio: Any = None, **kwargs: Any
    ) -> None:
        """Check a call before anything is computed.

        Raises:
            PlaceholderMismatchError: when the prompts do not hold as many pictures as are given.
        """
        texts = [text] if isinstance(text, str) else text or []
        expected = sum(t.count(self.image_token) for t in texts if isinstance(t, str))
        found = 0 if images is None else len(_flat(images))
        if text is not None and expected != found:
            raise PlaceholderMismatchError(
                f"the prompts hold {expected} {self.image_token} placeholders but {found} pictures were given: give "
                "one picture per placeholder, in order"
            )
        super().validate_inputs(images=images, text=text, videos=videos, audio=audio, **kwargs)

    @property
    def unused_input_names(self) -> list[str]:
        """What the image processor returns for counting only."""
        return ["num_views", "image_sizes"]

    @property
    def model_input_names(self) -> list[str]:
        """What the model reads."""
        return ["input_ids", "attention_mask", "mm_token_type_ids", *self.image_processor.model_input_names]

    def to_dict(self) -> dict[str, Any]:
        """Serialize to plain JSON types."""
        output: dict[str, Any] = super().to_dict()
        output["prompt"] = self.prompt.model_dump(mode="json")
        return output


def build_processor(config: SaccadeConfig, tokenizer: Any) -> SaccadeProcessor:
    """Return the processor of a model.

    Args:
        config: Configuration of the model.
        tokenizer: Tokenizer of its decoder, placeholders included.

    Raises:
        ConfigError: when the tokenizer does not know the placeholders by the ids of the configuration.
    """
    image: ImageConfig = config.image
    image_processor = SaccadeImageProcessor(tokens_per_view=config.tokens_per_view, **image.model_dump())
    processor = SaccadeProcessor(image_processor, tokenizer, prompt=config.prompt)
    for name in ("image_token", "query_token"):
        expected, found = getattr(config, f"{name}_id"), getattr(processor, f"{name}_id")
        if expected != found:
            raise ConfigError(
                f"config.{name}_id is {expected} but the tokenizer writes {getattr(processor, name)} as {found}: use "
                "the tokenizer that was saved with the model"
            )
    return processor


def _placeholder_id(spelling: str, tokenizer: Any) -> int:
    """Return the id of a placeholder that typed text can never produce."""
    added = {str(token): (i, token) for i, token in tokenizer.added_tokens_decoder.items()}
    if spelling not in added or not added[spelling][1].special:
        raise ConfigError(f"{spelling} is not a special token of the tokenizer: add it with add_special_tokens")
    identity, token = added[spelling]
    if token.lstrip or token.rstrip:
        raise ConfigError(f"{spelling} swallows blanks beside it: add it with lstrip and rstrip off")
    return int(identity)


def _fetched(source: Any) -> ImageSource:
    """Fetch what is given as an address or a data URI; other sources are returned as they are."""
    if not isinstance(source, str) or os.path.isfile(source):
        return source  # type: ignore[no-any-return]
    if source.startswith(("http://", "https://")):
        fetched: Image.Image = load_image(source)
        return fetched
    if source.startswith("data:"):
        try:
            return base64.b64decode(source.partition(",")[2], validate=True)
        except binascii.Error as error:
            raise ImageError(f"a data URI is not valid base64 ({error}): encode the file again") from error
    return source


def _flat(images: Any) -> list[Any]:
    """Return the pictures of nested lists in order."""
    if not isinstance(images, list | tuple):
        return [images]
    return [image for part in images for image in _flat(part)]
