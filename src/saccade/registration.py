"""Makes transformers' Auto classes know this package: importing this module registers, once."""

from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor

# From its own module: older releases of transformers hide the top-level name where torchvision is missing.
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from saccade.config import SaccadeConfig
from saccade.image.processor import SaccadeImageProcessor, SaccadeProcessor
from saccade.model import SaccadeForConditionalGeneration, SaccadeModel

AutoConfig.register(SaccadeConfig.model_type, SaccadeConfig, exist_ok=True)
AutoModel.register(SaccadeConfig, SaccadeModel, exist_ok=True)
AutoModelForImageTextToText.register(SaccadeConfig, SaccadeForConditionalGeneration, exist_ok=True)
AutoImageProcessor.register(SaccadeConfig, image_processor_classes={"pil": SaccadeImageProcessor}, exist_ok=True)
AutoProcessor.register(SaccadeConfig, SaccadeProcessor, exist_ok=True)
