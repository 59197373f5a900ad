"""A byte-level tokenizer with merges, trained in a blink, that has the special tokens of the templates under test."""

from functools import cache

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from saccade.config import PromptConfig

SPECIALS = ("<|endoftext|>", "<image>", "<learnable>", "</s>", "<|im_start|>", "<|im_end|>")
# Blanks in a row are a token of their own and not special, as in vocabularies made for code.
BLANKS = ("  ", "    ")

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. "
)
CORPUS = (
    SYSTEM,
    "USER: What color is the circle? ASSISTANT: The circle is red.",
    "USER: How many squares are left of the blue triangle?\nAnswer with one word. ASSISTANT: Two",
    "Über den Kreis hinaus: 三角形 und Ünicode, naïve café",
)

PLAIN_TEXT = PromptConfig(system=SYSTEM, query_token="<learnable>", num_queries=9)
CHAT_MARKUP = PromptConfig(
    system="<|im_start|>system\nYou are helpful.<|im_end|>\n",
    user_start="<|im_start|>user\n",
    user_end="<|im_end|>\n",
    assistant_start="<|im_start|>assistant\n",
    answer_start="",
    assistant_end="<|im_end|>\n",
    query_token="<learnable>",
    num_queries=3,
)
WITHOUT_QUERIES = PromptConfig(system="系统。 ", image_suffix="")
UNUSUAL = PromptConfig(
    system="Ümlaut Q — 三 ",
    user_start="Q — ",
    image_suffix=" | ",
    user_end="\n",
    assistant_start="A:",
    query_token="<learnable>",
    num_queries=2,
)
TEMPLATES = {
    "plain text": PLAIN_TEXT,
    "markup": CHAT_MARKUP,
    "no queries": WITHOUT_QUERIES,
    "unusual": UNUSUAL,
}


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer; it is shared, so do not add tokens to it."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    backend.train_from_iterator(CORPUS, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False)
    fast.add_tokens(list(BLANKS))
    fast.add_special_tokens({"additional_special_tokens": list(SPECIALS)})
    fast.eos_token, fast.pad_token = "</s>", "<|endoftext|>"
    return fast
