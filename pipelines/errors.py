"""Everything a caller can do wrong with a pipeline, as one tree of errors.

PipelineError                a ValueError; its text is one sentence: what, got, expected, cure
├── UnsupportedScheduler     the scheduler cannot be run in windows
├── UnsupportedSize          the model cannot make pictures of this size
├── UnknownModel             neither a hub id, nor a folder, nor a built-in model
├── OutOfMemory              a single particle does not fit into memory
└── NotFinite                NaN or infinity came out of the model
"""


class PipelineError(ValueError):
    """A request that the pipelines cannot serve; the message says what to do instead."""


class UnsupportedScheduler(PipelineError):
    """A scheduler whose steps are not one model call each, or whose noise levels cannot be read."""


class UnsupportedSize(PipelineError):
    """A height or width that the model cannot make."""


class UnknownModel(PipelineError):
    """A model name that leads nowhere."""


class OutOfMemory(PipelineError):
    """Even one particle at a time does not fit into memory."""


class NotFinite(PipelineError):
    """The model gave NaN or infinity."""
