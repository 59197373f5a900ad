"""Conversations as LLaVA's rows hold them, for the tests of rows: one in words, one about a picture."""

TALK = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
SHOWN = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "a cat"}]
