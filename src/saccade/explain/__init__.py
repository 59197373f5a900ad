"""What a model looked at for one question: the weights of SAP and EmbQ, laid and drawn on the picture.

The room stands below `saccade.vlm` and knows neither it nor the rendered world: it takes a model and its inputs, so
that `VLM.explain` and any score of attention can use it.
"""

from saccade.explain.attention import Attention, attend, check_explainable
from saccade.explain.explanation import Explanation, explain
from saccade.explain.maps import grid_boxes, to_map

__all__ = ["Attention", "Explanation", "attend", "check_explainable", "explain", "grid_boxes", "to_map"]
