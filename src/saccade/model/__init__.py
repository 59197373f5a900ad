"""The composable model: tower, compressor, projector, decoder, embedded query. Single-device, pure, compilable."""

from saccade.model.head import SaccadeForConditionalGeneration
from saccade.model.model import SaccadeModel, SaccadePreTrainedModel

__all__ = ["SaccadeForConditionalGeneration", "SaccadeModel", "SaccadePreTrainedModel"]
