"""What a model looked at for one question: attention of the answer, SAP and EmbQ, laid and drawn on the picture.

The room stands below `saccade.vlm` and knows neither it nor the rendered world: it takes a model and its inputs, so
that `VLM.explain` and any score of attention can use it.
"""

from saccade.explain.answer import read_by_answer, to_patches
from saccade.explain.attention import Attention, attend
from saccade.explain.explanation import Explanation, explain
from saccade.explain.maps import grid_boxes, kept_boxes, to_map

__all__ = [
    "Attention",
    "Explanation",
    "attend",
    "explain",
    "grid_boxes",
    "kept_boxes",
    "read_by_answer",
    "to_map",
    "to_patches",
]
