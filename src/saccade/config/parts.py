"""The parts of a model's configuration: picture, prompt, patches, compressor, projector, embedded query."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from saccade.config.frozen import Frozen
from saccade.errors import ConfigError

Fit = Literal["squash", "pad"]


class ImageConfig(Frozen):
    """How one picture becomes square views of `side` pixels (see `saccade.image`).

    Attributes:
        side: Side of a view in pixels; equals the vision tower's picture size.
        layout: "single": the whole picture is one view. "tiles": a thumbnail of the whole picture, then the picture
            once more, larger, cut row by row into a square grid of tiles.
        fit: How the picture becomes the square that is shown or cut: "squash" ignores the aspect ratio, "pad" first
            centers the picture on a square canvas.
        tiles_per_side: Tiles along one side of the grid; 1 for "single".
        thumbnail_fit: How the picture becomes the square thumbnail ("tiles" only).
        resample: Interpolation of the resize.
        mean: Per-channel mean subtracted after scaling to [0, 1], RGB.
        std: Per-channel divisor after the mean, RGB.
        pad_value: Gray level of the canvas for "pad", 0..255.
        max_pixels: Pictures with more pixels are refused before they are decoded, and so are those that padding would
            make a square of more pixels.
    """

    side: PositiveInt
    layout: Literal["single", "tiles"] = "single"
    fit: Fit = "squash"
    tiles_per_side: PositiveInt = 1
    thumbnail_fit: Fit = "squash"
    resample: Literal["bicubic", "bilinear"] = "bicubic"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    pad_value: Annotated[int, Field(ge=0, le=255)] = 127
    max_pixels: PositiveInt = 178_956_970

    @model_validator(mode="after")
    def _checked(self) -> Self:
        self.check()
        return self

    def check(self) -> None:
        """Raise ConfigError where fields that are valid alone do not fit together."""
        if self.layout == "tiles" and self.tiles_per_side == 1:
            raise ConfigError(
                "image.layout 'tiles' with image.tiles_per_side 1 cuts nothing: set tiles_per_side to 2 or more"
            )
        if self.layout == "single" and (self.tiles_per_side > 1 or self.thumbnail_fit != "squash"):
            raise ConfigError(
                "image.layout 'single' has neither tiles nor a thumbnail, but image.tiles_per_side is "
                f"{self.tiles_per_side} and image.thumbnail_fit {self.thumbnail_fit!r}: set layout to 'tiles', or "
                "leave both out"
            )


class PromptConfig(Frozen):
    """A conversation template as text around the turns (see `saccade.prompt`).

    A chat is rendered as `system`, then for every turn `user_start`, the pictures each followed by `image_suffix`, the
    question, the query set, `user_end`, `assistant_start`, `answer_start`, the answer, `assistant_end`.

    Attributes:
        system: Text before the first turn, with everything that separates it from the turn.
        user_start: Text before a user's message.
        user_end: Text after a user's message and its query set.
        assistant_start: Header of the answer; generation starts right after it.
        answer_start: Text between header and answer; trained as part of the answer.
        assistant_end: End of an answer; trained.
        image_suffix: Text after every picture.
        image_token: Spelling of the picture placeholder.
        query_token: Spelling of the query placeholder; None for models without embedded queries.
        num_queries: Query tokens in a set.
        blank_before_query: True renders a blank between question and query set, inside the instruction span. A
            reference model was trained with it and is run without it.
        query_without_image: What a turn that can see no picture gets: "none", "queries" (a query set that has nothing
            to read, as a reference's text-only training rows), or "token" (the bare placeholder as an ordinary
            token, as that reference's text-only inference).
        history_instruction: "own": every query set reads the question of its own turn. "first": all read the first one,
            as a reference does at inference.
        plain_instruction_skips: Leading caption tokens of the plain form that the query set does not read; a
            reference skips 1.
    """

    system: str = ""
    user_start: str = "USER: "
    user_end: str = " "
    assistant_start: str = "ASSISTANT:"
    answer_start: str = " "
    assistant_end: str = "</s>"
    image_suffix: str = "\n"
    image_token: str = "<image>"
    query_token: str | None = None
    num_queries: Annotated[int, Field(ge=0)] = 0
    blank_before_query: bool = False
    query_without_image: Literal["none", "queries", "token"] = "none"
    history_instruction: Literal["own", "first"] = "own"
    plain_instruction_skips: Annotated[int, Field(ge=0)] = 0


class VisionFeatureConfig(Frozen):
    """Which of the tower's hidden states are the patches.

    Attributes:
        layer: Index into the tower's hidden states as in `hidden_states[layer]`, negative from the end; later layers
            are never built. -1 is the output of the last layer, -2 of the one before.
        post_norm: Whether the tower's final norm is applied to that state.
        norm_module: Name of the final norm inside the tower, replaced by an identity when `post_norm` is false.
        num_prefix_tokens: Leading tokens that are not patches (a class token, registers); dropped.
    """

    layer: Annotated[int, Field(le=-1)] = -1
    post_norm: bool = True
    norm_module: str = "post_layernorm"
    num_prefix_tokens: Annotated[int, Field(ge=0)] = 0


class SapConfig(Frozen):
    """Spatial attention pooling over non-overlapping windows (FlashSloth, Sec. 3.2)."""

    kind: Literal["sap"] = "sap"
    window: PositiveInt = 3
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1


class AverageConfig(Frozen):
    """Average pooling over non-overlapping windows."""

    kind: Literal["average"] = "average"
    window: PositiveInt = 3


class IdentityConfig(Frozen):
    """No compression: one visual token per patch."""

    kind: Literal["none"] = "none"
    window: Literal[1] = 1


CompressorConfig = Annotated[SapConfig | AverageConfig | IdentityConfig, Field(discriminator="kind")]


class ProjectorConfig(Frozen):
    """A multilayer perceptron from patch width to decoder width, activation between its linear layers.

    Attributes:
        hidden_sizes: Widths between input and output; empty means one linear layer.
        input_norm: Whether a LayerNorm precedes the first linear layer.
        activation: A name from transformers' `ACT2FN`; "gelu" is the exact (erf) form.
        layer_norm_eps: Epsilon of the input norm.
    """

    hidden_sizes: tuple[PositiveInt, ...] = ()
    input_norm: bool = False
    activation: str = "gelu"
    layer_norm_eps: float = 1e-5


class QueryConfig(Frozen):
    """The embedded query module, EmbQ (FlashSloth, Sec. 3.3).

    Attributes:
        num_queries: Query tokens in a set.
        hidden_size: Width in which queries, text and patches meet.
        num_heads: Attention heads; divides `hidden_size` and the patch width.
        num_layers: Text-then-picture attention layers inside the module.
        before_layers: Decoder layers (0-based) whose input the module rewrites; one module serves all.
        fusion: How its output joins the query's hidden state: "add", "replace" or "gate" (appendix A.2).
        init: "dot_offset" learns an offset to the embedding of `init_token_id`; "dot" is that embedding, fixed to the
            table; "random" learns the queries alone (Table 3).
        init_token_id: The token whose embedding starts the queries.
        layer_norm_eps: Epsilon of the three norms.
    """

    num_queries: PositiveInt = 9
    hidden_size: PositiveInt
    num_heads: PositiveInt
    num_layers: PositiveInt = 1
    before_layers: tuple[Annotated[int, Field(ge=0)], ...]
    fusion: Literal["add", "replace", "gate"] = "add"
    init: Literal["dot_offset", "dot", "random"] = "dot_offset"
    init_token_id: Annotated[int, Field(ge=0)] = 0
    layer_norm_eps: float = 1e-5
