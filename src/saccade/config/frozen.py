"""The base of every configuration written for this project: frozen, validated when built, one sentence when wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator

from saccade.errors import ConfigError


class Frozen(BaseModel):
    """Base of the frozen parts: a field that is unknown or not valid is a ConfigError, instances never change."""

    model_config = ConfigDict(frozen=True)

    def __init__(self, **fields: Any) -> None:
        with in_one_sentence(type(self).__name__):
            super().__init__(**fields)

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # validates as pydantic's own does

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """Return fields, or an instance, as an instance."""
        with in_one_sentence(cls.__name__):
            return super().model_validate(obj, **options)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, fields: Any) -> Any:
        unknown = [name for name in fields if name not in cls.model_fields] if isinstance(fields, Mapping) else []
        if unknown:
            raise ConfigError(f"{unknown[0]} is not one of the known fields: {', '.join(cls.model_fields)}")
        return fields


_Part = TypeVar("_Part", bound=Frozen)


def to_part(name: str, kind: type[_Part], value: Any) -> _Part:
    """Return fields, or an instance, as an instance of `kind`; raise ConfigError, by `name`, if they are not valid."""
    with in_one_sentence(name):
        return TypeAdapter(kind).validate_python(value)


@contextmanager
def in_one_sentence(name: str) -> Iterator[None]:
    """Turn pydantic's report of several lines into a ConfigError of one."""
    try:
        yield
    except ValidationError as error:
        raise ConfigError(f"{name} is not valid: {_first_problem(error)}") from error


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    where, said = ".".join(map(str, problem["loc"])), problem["msg"].removeprefix("Value error, ")
    if where and problem["type"] != "value_error":  # a sentence of our own names what is wrong
        said += f" (got {problem['input']!r})"
    return f"{where}: {said}" if where else said
