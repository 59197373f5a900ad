"""The configuration of a whole model: its parts, and the configurations of tower and decoder, transformers' own."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.models.auto import AutoConfig

from saccade.config.compressors import CompressorConfig, CropConfig, IdentityConfig
from saccade.config.frozen import Frozen, in_one_sentence, to_part
from saccade.config.parts import ProjectorConfig, QueryConfig, VisionFeatureConfig
from saccade.config.picture import ImageConfig
from saccade.config.template import PromptConfig
from saccade.errors import ConfigError

_COMPRESSOR: TypeAdapter[CompressorConfig] = TypeAdapter(CompressorConfig)


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
        compressor: CompressorConfig = IdentityConfig()
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
        with in_one_sentence("compressor"):
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
    def token_dim(self) -> int:
        """Width of a visual token before it is projected."""
        return self.compressor.width(self.vision_config.hidden_size)

    @property
    def tokens_per_view(self) -> int:
        """Visual tokens of one view, queries not counted."""
        return self.compressor.num_tokens(self.grid)

    @property
    def placeholder_ids(self) -> list[int]:
        """Ids that stand for pictures and queries, which are never said."""
        return [token for token in (self.image_token_id, self.query_token_id) if token is not None]

    def check(self) -> None:
        """Raise ConfigError where fields that are valid alone do not fit together; a model checks again when built."""
        self.image.check()
        self._check_vision()
        self._check_crop()
        self._check_tiles()
        self._check_query()

    def _check_vision(self) -> None:
        tower = self.vision_config
        if not isinstance(getattr(tower, "image_size", None), int):
            raise ConfigError(f"the tower {tower.model_type} has no fixed square picture size: choose one that has")
        if tower.image_size != self.image.side:
            raise ConfigError(
                f"image.side is {self.image.side}, but the tower takes {tower.image_size}: make both equal"
            )
        self.compressor.num_tokens(self.grid)
        if -self.vision.layer > tower.num_hidden_layers:
            raise ConfigError(
                f"vision.layer {self.vision.layer} reaches past the tower's {tower.num_hidden_layers} layers"
            )

    def _check_crop(self) -> None:
        if not isinstance(self.compressor, CropConfig):
            return
        patch = self.vision_config.patch_size
        if self.image.side % patch:
            raise ConfigError(
                f"image.side {self.image.side} is no multiple of the tower's patches of {patch} pixels: the rest of "
                "every view is seen by no patch, and a compressor that crops would lose it from the picture"
            )
        if self.compressor.margin * patch != self.image.margin:
            raise ConfigError(
                f"the compressor crops {self.compressor.margin} patches of {patch} pixels, but views repeat "
                f"image.margin {self.image.margin} pixels of their neighbors: make both equal, or parts of a picture "
                "are lost or shown twice"
            )

    def _check_tiles(self) -> None:
        for name in ("view_start", "view_end", "row_separator"):
            text = getattr(self.prompt, name)
            if text and self.image.layout == "single":
                raise ConfigError(
                    f"image.layout 'single' makes no tiles, so prompt.{name} {text!r} would never be written: leave it "
                    "out, or set image.layout to one that cuts"
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

    def definition(self) -> dict[str, Any]:
        """Return every field in plain JSON types, without the version of the library that wrote them."""
        fields: dict[str, Any] = json.loads(self.to_json_string())
        del fields["transformers_version"]
        return fields

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
