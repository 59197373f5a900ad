"""The composable model: tower, compressor, projector, decoder, embedded query. Single-device, pure, compilable."""

from saccade.model.model import SaccadeForConditionalGeneration, SaccadeModel, SaccadePreTrainedModel

__all__ = ["SaccadeForConditionalGeneration", "SaccadeModel", "SaccadePreTrainedModel"]
