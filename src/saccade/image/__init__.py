"""Pictures: how many views and tokens they become, and the pixels of those views."""

from saccade.image.geometry import View, num_image_tokens, num_views, view_rows, views
from saccade.image.transform import ImageSource, normalize, open_image, to_views

__all__ = [
    "ImageSource",
    "View",
    "normalize",
    "num_image_tokens",
    "num_views",
    "open_image",
    "to_views",
    "view_rows",
    "views",
]
