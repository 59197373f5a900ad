"""Where rows are: a file, a folder, shards or a data set, said by configuration."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from saccade.config import Frozen

Kind = Literal["chat", "captions", "preferences", "problems"]


class Source(Frozen):
    """One place that rows come from.

    Attributes:
        path: A file, a folder, a pattern of shards, or `hf:owner/name`.
        kind: What its rows are.
        pictures: Folder that relative names of pictures start from; by default that of the file.
        share: Its share of the rows of a mixture; by default each row of it once.
        split: Split of a data set that has several.
        limit: Most rows, the first ones.
    """

    path: str
    kind: Kind
    pictures: str | None = None
    share: Annotated[float, Field(gt=0)] | None = None
    split: str = "train"
    limit: PositiveInt | None = None
