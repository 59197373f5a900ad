"""Typed errors: each message names the thing that is wrong and the remedy, in one sentence or two."""


class SaccadeError(Exception):
    """Base of every error this package raises on purpose; the command line prints it without a traceback."""


class SaccadeWarning(UserWarning):
    """Something was left out that the caller may care about; the command line shows it in one line."""


class ConfigError(SaccadeError, ValueError):
    """A configuration contradicts itself or names something that does not exist."""


class ImageError(SaccadeError, ValueError):
    """A picture cannot be read or is not usable as one."""


class PromptError(SaccadeError, ValueError):
    """A conversation cannot be rendered, or does not fit the model."""


class PlaceholderMismatchError(SaccadeError, ValueError):
    """The placeholders of a row and the visual features given for it do not match."""


class CheckpointError(SaccadeError, ValueError):
    """A checkpoint is missing, incomplete, or not what its configuration says."""


class DataError(SaccadeError, ValueError):
    """A training or evaluation sample is malformed."""


class EngineError(SaccadeError, RuntimeError):
    """An engine cannot take or finish a question, through no fault of the question."""
