"""How a run is carried out, which changes nothing of what is learned."""

from typing import TypedDict


class Options(TypedDict, total=False):
    """What may be said of a run, and again in other words when it goes on; see `DEFAULTS`.

    Attributes:
        workers: Processes that prepare batches.
        save_steps: Steps between checkpoints; 0 for none at all.
        compiled: Whether to compile a stage of patches; its first steps then take a minute.
        sharded: Whether each process keeps only a part of the weights, their gradients and the optimizer's state.
        skip_bad: Leave out rows that cannot be trained on instead of stopping.
        tensorboard: Also write event files for TensorBoard, to `runs` in the folder of a stage.
    """

    workers: int
    save_steps: int
    compiled: bool
    sharded: bool
    skip_bad: bool
    tensorboard: bool


DEFAULTS = Options(workers=1, save_steps=200, compiled=False, sharded=False, skip_bad=False, tensorboard=False)
