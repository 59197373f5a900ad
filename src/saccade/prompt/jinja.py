"""The chat template as a Jinja string, so that any tool that renders conversations renders these ones the same way."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from saccade.config import PromptConfig
from saccade.prompt.conversation import PART_SEPARATOR
from saccade.prompt.render import SYSTEM_SEPARATOR

_TEMPLATE = """\
{%- set state = namespace(opening=OPENING, system='', turns=0, sees=false) -%}
{%- for message in messages -%}
{%- set said = namespace(text='', texts=0, images=0) -%}
{%- if message['content'] is string -%}
{%- set said.text = message['content'] -%}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' or part['type'] == 'image_url' -%}
{%- set said.images = said.images + 1 -%}
{%- elif part['type'] == 'text' -%}
{%- set said.text = said.text ~ (PART_SEPARATOR if said.texts else '') ~ part['text'] -%}
{%- set said.texts = said.texts + 1 -%}
{%- else -%}
{{- raise_exception('a message holds a part that is neither a picture nor a text') -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- if said.images and message['role'] != 'user' -%}
{{- raise_exception('a message holds a picture that is not of the user') -}}
{%- endif -%}
{%- if message['role'] == 'system' and loop.first -%}
{%- set SYSTEM_MESSAGE -%}
{%- elif message['role'] != ('assistant' if state.turns % 2 else 'user') -%}
{{- raise_exception('a conversation alternates between user and assistant, the user first') -}}
{%- elif message['role'] == 'user' -%}
{%- if not said.images and not said.text.strip() -%}
{{- raise_exception('a message of the user is empty') -}}
{%- endif -%}
{{- state.opening if not state.turns else '' -}}
{{- USER_START ~ IMAGE * said.images -}}
{{- (state.system ~ said.text)ESCAPE -}}
{%- set state.system = '' -%}
{%- set state.sees = state.sees or said.images > 0 -%}
{{- (QUERY if state.sees else QUERY_WITHOUT_IMAGE) ~ USER_END -}}
{%- else -%}
{{- ASSISTANT_START -}}
{%- generation -%}
{{- ANSWER_START ~ (said.textESCAPE) ~ ASSISTANT_END -}}
{%- endgeneration -%}
{{- TURN_SEPARATOR -}}
{%- endif -%}
{%- if message['role'] != 'system' -%}
{%- set state.turns = state.turns + 1 -%}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- ASSISTANT_START -}}
{%- endif -%}
"""


def chat_template(config: PromptConfig, special_tokens: Iterable[str] = ()) -> str:
    """Write a template in transformers' Jinja dialect that renders what `render_chat` renders.

    It gives a string, in which typed text that spells a special token could not be told from one. Such text gets a
    blank after its first character: `<image>` becomes `< image>`. Rendered natively, typed text needs no such change.

    The trained part of every answer stands in a `generation` block, from which transformers makes assistant masks
    (older releases misplace them).

    Args:
        config: The template as data.
        special_tokens: Spellings to look for in typed text.
    """
    blank = " " if config.blank_before_query else ""
    query = config.query_token or ""
    full = blank + query * config.num_queries if query else ""
    without = {"none": "", "queries": full, "token": blank + query if query else ""}[config.query_without_image]
    escapes = "".join(
        f"|replace({_literal(token)}, {_literal(token[0] + ' ' + token[1:])})"
        for token in sorted(set(special_tokens), key=lambda token: (-len(token), token))
    )
    if config.system_start:
        start, end = _literal(config.system_start), _literal(config.system_end)
        system = f"state.opening = {start} ~ (said.text{escapes}) ~ {end}"
    else:
        system = f"state.system = said.text ~ {_literal(SYSTEM_SEPARATOR)} if said.text else ''"
    fields = {
        "OPENING": config.opening,
        "PART_SEPARATOR": PART_SEPARATOR,
        "QUERY_WITHOUT_IMAGE": without,
        "QUERY": full,
        "USER_START": config.user_start,
        "USER_END": config.user_end,
        "IMAGE": config.image_token + config.image_suffix,
        "ASSISTANT_START": config.assistant_start,
        "ANSWER_START": config.answer_start,
        "ASSISTANT_END": config.assistant_end,
        "TURN_SEPARATOR": config.turn_separator,
    }
    values = {name: _literal(value) for name, value in fields.items()}
    return _fill(_TEMPLATE, values | {"ESCAPE": escapes, "SYSTEM_MESSAGE": system})


def _literal(text: str) -> str:
    """Write a string as Jinja reads it."""
    return json.dumps(text, ensure_ascii=False)


def _fill(template: str, values: dict[str, str]) -> str:
    """Put values in the place of their names."""
    names = sorted(values, key=len, reverse=True)
    return re.sub("|".join(names), lambda match: values[match[0]], template)
