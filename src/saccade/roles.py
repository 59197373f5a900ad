"""Token roles: one integer per token, written while the prompt is rendered and read by the model.

The tensor travels as `mm_token_type_ids` `[batch, seq]`, the name that transformers, trl and vLLM already hand from a
processor to a model. Padding has role TEXT, so roles survive padding on either side.

| role | meaning |
|---|---|
| 0 | ordinary text (and padding) |
| 1 | a visual token |
| 2 + 2 t | a token of the instruction of turn t, which the query set of that turn reads |
| 3 + 2 t | a query token that reads the instruction of turn t |
"""

from typing import Any

TEXT = 0
IMAGE = 1


def instruction_role(turn: int) -> int:
    """Role of the tokens that the query set of `turn` (counted from 0) reads."""
    return 2 + 2 * turn


def query_role(turn: int) -> int:
    """Role of the query tokens that read the instruction of `turn` (counted from 0)."""
    return 3 + 2 * turn


def is_query(roles: Any) -> Any:
    """Where `roles` (an integer, an array or a tensor of any shape) are those of query tokens."""
    return (roles >= query_role(0)) & (roles % 2 == query_role(0) % 2)
