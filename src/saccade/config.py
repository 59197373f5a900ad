"""Configurations: a model is data. Every behavior is a field here; nothing is inferred from names or paths.

The parts written for this project are frozen pydantic models, validated when they are built. `SaccadeConfig` holds them
beside the configurations of the vision tower and the decoder, which are transformers' own.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, TypeAdapter, ValidationError, model_validator
from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.models.auto import AutoConfig

from saccade.errors import ConfigError

Fit = Literal["squash", "pad"]


class Frozen(BaseModel):
    """Base of the frozen parts: a field that is unknown or not valid is a ConfigError, instances never change."""

    model_config = ConfigDict(frozen=True)

    def __init__(self, **fields: Any) -> None:
        with _in_one_sentence(type(self).__name__):
            super().__init__(**fields)

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # validates as pydantic's own does

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """Return fields, or an instance, as an instance."""
        with _in_one_sentence(cls.__name__):
            return super().model_validate(obj, **options)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, fields: Any) -> Any:
        unknown = [name for name in fields if name not in cls.model_fields] if isinstance(fields, Mapping) else []
        if unknown:
            raise ConfigError(f"{unknown[0]} is not one of the known fields: {', '.join(cls.model_fields)}")
        return fields


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


_COMPRESSOR: TypeAdapter[SapConfig | AverageConfig | IdentityConfig] = TypeAdapter(CompressorConfig)
_Part = TypeVar("_Part", bound=Frozen)


def to_part(name: str, kind: type[_Part], value: Any) -> _Part:
    """Return fields, or an instance, as an instance of `kind`; raise ConfigError, by `name`, if they are not valid."""
    with _in_one_sentence(name):
        return TypeAdapter(kind).validate_python(value)


@contextmanager
def _in_one_sentence(name: str) -> Iterator[None]:
    """Turn pydantic's report of several lines into a ConfigError of one."""
    try:
        yield
    except ValidationError as error:
        raise ConfigError(f"{name} is not valid: {_first_problem(error)}") from error


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    where, said = ".".join(map(str, problem["loc"])), problem["msg"].removeprefix("Value error, ")
    if where and problem["type"] != "value_error":  # a sentence of our own names what is wrong
        said += f" (got {problem['input']!r})"
    return f"{where}: {said}" if where else said


class SaccadeConfig(PreTrainedConfig):
    """Everything that defines a model: tower, patches, compressor, projector, decoder, embedded query, picture, prompt.

    Args:
        vision_config: Configuration of the vision tower as published, all its layers included.
        text_config: Configuration of the decoder.
        vision: Which of the tower's states are used.
        compressor: How patches become visual tokens.
        projector: From patch width to decoder width.
        query: The embedded query module, or None.
        image: How pictures become views.
        prompt: How conversations become text.
        image_token_id: Id that stands for one visual token.
        query_token_id: Id that stands for one query token; None without `query`.
        lm_head_bias: Whether the output head has a bias.
        description: One line that says what the model knows; shown beside its answers when set.

    Raises:
        ConfigError: when fields contradict each other.
    """

    model_type = "saccade"
    sub_configs = {"vision_config": AutoConfig, "text_config": AutoConfig}  # noqa: RUF012

    # Every field may be given as a plain dict, as a configuration file does; once built, it has the type checked here.
    if TYPE_CHECKING:
        vision_config: Any = None
        text_config: Any = None
        vision: VisionFeatureConfig = VisionFeatureConfig()
        compressor: SapConfig | AverageConfig | IdentityConfig = IdentityConfig()
        projector: ProjectorConfig = ProjectorConfig()
        query: QueryConfig | None = None
        image: ImageConfig = ImageConfig(side=1)
        prompt: PromptConfig = PromptConfig()
    else:
        vision_config: Any = None
        text_config: Any = None
        vision: Any = None
        compressor: Any = None
        projector: Any = None
        query: Any = None
        image: Any = None
        prompt: Any = None
    image_token_id: int = 0
    query_token_id: int | None = None
    lm_head_bias: bool = False
    tie_word_embeddings: bool = False
    description: str | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        self.vision_config = _backbone(self.vision_config, default="siglip_vision_model")
        self.text_config = _backbone(self.text_config, default="phi")
        self.vision = to_part("vision", VisionFeatureConfig, self.vision or {})
        with _in_one_sentence("compressor"):
            self.compressor = _COMPRESSOR.validate_python(self.compressor or IdentityConfig())
        self.projector = to_part("projector", ProjectorConfig, self.projector or {})
        self.query = None if self.query is None else to_part("query", QueryConfig, self.query)
        self.image = to_part("image", ImageConfig, self.image or {"side": getattr(self.vision_config, "image_size", 1)})
        self.prompt = to_part("prompt", PromptConfig, self.prompt or {})
        super().__post_init__(**kwargs)
        self.check()

    @property
    def grid(self) -> int:
        """Patches along one side of a view."""
        return int(self.vision_config.image_size // self.vision_config.patch_size)

    @property
    def patches_per_view(self) -> int:
        """Patches of one view."""
        return self.grid**2

    @property
    def tokens_per_view(self) -> int:
        """Visual tokens of one view, queries not counted."""
        return (self.grid // self.compressor.window) ** 2

    def check(self) -> None:
        """Raise ConfigError where fields that are valid alone do not fit together; a model checks again when built."""
        self.image.check()
        self._check_vision()
        self._check_query()

    def _check_vision(self) -> None:
        tower = self.vision_config
        if not isinstance(getattr(tower, "image_size", None), int):
            raise ConfigError(f"the tower {tower.model_type} has no fixed square picture size: choose one that has")
        if tower.image_size != self.image.side:
            raise ConfigError(
                f"image.side is {self.image.side}, but the tower takes {tower.image_size}: make both equal"
            )
        if self.grid % self.compressor.window:
            raise ConfigError(
                f"compressor.window {self.compressor.window} does not divide the grid of {self.grid} patches a side"
            )
        if -self.vision.layer > tower.num_hidden_layers:
            raise ConfigError(
                f"vision.layer {self.vision.layer} reaches past the tower's {tower.num_hidden_layers} layers"
            )

    def _check_query(self) -> None:
        query, prompt = self.query, self.prompt
        if len({query is None, self.query_token_id is None, prompt.query_token is None}) > 1:
            raise ConfigError("query, query_token_id and prompt.query_token belong together: give all three or none")
        if query is None:
            return
        if query.num_queries != prompt.num_queries:
            raise ConfigError(
                f"query.num_queries {query.num_queries} is not prompt.num_queries {prompt.num_queries}: make both equal"
            )
        widths = {"query.hidden_size": query.hidden_size, "the patch width": self.vision_config.hidden_size}
        for name, width in widths.items():
            if width % query.num_heads:
                raise ConfigError(f"query.num_heads {query.num_heads} does not divide {name} {width}")
        layers = self.text_config.num_hidden_layers
        if not query.before_layers or max(query.before_layers) >= layers:
            raise ConfigError(
                f"query.before_layers {query.before_layers} must name layers of the decoder, 0 to {layers - 1}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Serialize to plain JSON types; `SaccadeConfig(**config.to_dict())` equals the original."""
        output: dict[str, Any] = super().to_dict()
        for name, value in output.items():
            if isinstance(value, Frozen):
                output[name] = value.model_dump(mode="json")
        return output

    def get_text_config(self, *_: Any, **__: Any) -> PreTrainedConfig:
        """Return the decoder's configuration (generation and caches read it)."""
        text: PreTrainedConfig = self.text_config
        return text


def _backbone(value: Any, default: str) -> Any:
    """Return a transformers config of its own: a later change to the caller's object must not reach the model."""
    if value is None:
        return CONFIG_MAPPING[default]()
    if isinstance(value, PreTrainedConfig):
        return copy.deepcopy(value)
    fields = dict(value)
    kind = fields.pop("model_type", None)
    if kind not in CONFIG_MAPPING:
        raise ConfigError(f"model_type {kind!r} is not one that transformers knows: name the backbone's model_type")
    return CONFIG_MAPPING[kind](**fields)
