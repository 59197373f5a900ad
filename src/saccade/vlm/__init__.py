"""The face of the package: a model and its processor as something that can be asked."""

from saccade.vlm.answers import Answer, Timings
from saccade.vlm.chat import Chat, Conversation
from saccade.vlm.choosing import Choice
from saccade.vlm.frames import choose_frames
from saccade.vlm.generation import Sampling
from saccade.vlm.inputs import EncodedImage, Picture
from saccade.vlm.streaming import Event
from saccade.vlm.vlm import VLM, load, parse_dtype

__all__ = [
    "VLM",
    "Answer",
    "Chat",
    "Choice",
    "Conversation",
    "EncodedImage",
    "Event",
    "Picture",
    "Sampling",
    "Timings",
    "choose_frames",
    "load",
    "parse_dtype",
]
