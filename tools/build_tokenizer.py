"""Build nano's tokenizer: byte-level BPE over the words of the rendered world's training split.

    python tools/build_tokenizer.py

Any text can be spelled with it; the world's own words are single tokens.
"""

from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from saccade import presets
from saccade.data import scenes

FOLDER = Path(__file__).parents[1] / "src" / "saccade" / "assets" / "nano"
END_OF_TEXT = "<|endoftext|>"
SCENES = 4000


def texts() -> Iterator[str]:
    """Yield training text as the model will see it: template, questions, answers, captions."""
    prompt = presets.nano().prompt
    for family in scenes.FAMILIES:
        for index in range(SCENES):
            scene = scenes.sketch(family, "train", index)
            yield scene.caption
            for question in scene.questions:
                yield f"{prompt.user_start}{prompt.image_suffix}{question.text}"
                yield f"{prompt.user_end}{prompt.assistant_start}{prompt.answer_start}{question.answer}"


def main() -> None:
    """Train the tokenizer and write its folder."""
    config = presets.nano()
    specials = [END_OF_TEXT, config.prompt.image_token, str(config.prompt.query_token), config.prompt.assistant_end]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.text_config.vocab_size,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=config.prompt.assistant_end,
        pad_token=END_OF_TEXT,
        unk_token=END_OF_TEXT,
        bos_token=END_OF_TEXT,
        additional_special_tokens=[config.prompt.image_token, config.prompt.query_token],
        clean_up_tokenization_spaces=False,
        model_max_length=config.text_config.max_position_embeddings,
    )
    fast.save_pretrained(FOLDER)
    print(f"{len(fast)} tokens in {FOLDER}")


if __name__ == "__main__":
    main()
