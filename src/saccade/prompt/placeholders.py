"""The tokens of a template in a tokenizer, by the ids that a model knows them by."""

from typing import Any

from saccade.config import SaccadeConfig
from saccade.errors import ConfigError


def add_placeholders(tokenizer: Any, config: SaccadeConfig) -> None:
    """Give a tokenizer the tokens that stand for queries and pictures, and the one that ends an answer.

    What it does not know is appended in the order in which the papers' code adds it; what it knows becomes special.

    Raises:
        ConfigError: when a placeholder then has another id than the model knows it by.
    """
    prompt = config.prompt
    for token in filter(None, (prompt.query_token, prompt.assistant_end, prompt.image_token)):
        tokenizer.add_tokens([token], special_tokens=True)
    for spelling, wanted in ((prompt.query_token, config.query_token_id), (prompt.image_token, config.image_token_id)):
        found = None if spelling is None else tokenizer.convert_tokens_to_ids(spelling)
        if found != wanted:
            raise ConfigError(
                f"the tokenizer gives {spelling} the id {found}, but the model knows it as {wanted}: use its decoder's "
                "own tokenizer, for a release the one beside its weights"
            )
