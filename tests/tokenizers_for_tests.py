"""Byte-level tokenizers with merges, trained in a blink, that have the special tokens of the templates under test."""

from functools import cache

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from saccade import presets
from saccade.config import PromptConfig

SPECIALS = ("<|endoftext|>", "<image>", "<learnable>", "</s>", "<|im_start|>", "<|im_end|>")
# In the order of Qwen's ids, and then the placeholders.
QWEN_SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<learnable>")
# How Qwen's tokenizers split text into words.
QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
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
CHATML_CORPUS = (
    "system\nYou are a helpful assistant.\nuser\nWhat color is the circle?\n\nassistant\nThe circle is red.\n",
    "[PLACEHOLDER_0][PLACEHOLDER_1]\n[PLACEHOLDER_1][PLACEHOLDER_0]",
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
QUERIES = {"query_token": "<learnable>", "num_queries": 4}
CHATML = presets.CHATML.model_copy(update=QUERIES)
CHATML_TILES = CHATML.model_copy(update={**presets.FLASHVL_TILES, "row_separator": "\n"})
SYSTEM_TURN = PromptConfig(
    system="Be kind.", system_start="SYSTEM: ", system_end="\n\n", turn_separator="\n", image_suffix="", **QUERIES
)
TEMPLATES = {
    "plain text": PLAIN_TEXT,
    "markup": CHAT_MARKUP,
    "no queries": WITHOUT_QUERIES,
    "unusual": UNUSUAL,
    "system turn": SYSTEM_TURN,
    "chatml": CHATML,
    "chatml tiles": CHATML_TILES,
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


@cache
def qwen_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer that is Qwen's but for its merges: normal form, words, bytes, specials; shared too."""
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    backend.train_from_iterator(CORPUS + CHATML_CORPUS, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False)
    fast.add_special_tokens({"additional_special_tokens": list(QWEN_SPECIALS)})
    fast.eos_token, fast.pad_token = "<|im_end|>", "<|endoftext|>"
    return fast
