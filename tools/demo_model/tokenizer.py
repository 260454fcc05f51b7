"""The demo model's tokeniser: Qwen2's byte-level BPE with a vocabulary of a few hundred.

Normaliser, split pattern, byte alphabet and special tokens are Qwen2's, so an engine needs no case of its own for
it; only the merges are few. Words of the truth cameras become single tokens, any other text falls back to bytes.
"""

import itertools
from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from config import ANSWER_PROMPT, INIT_PROMPT, SPECIAL_TOKENS, TURN_END

# Qwen2's published split pattern: contractions, words with one leading mark, single digits, marks, line ends, spaces.
SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train_tokenizer(texts: Iterable[str], vocab: int) -> Tokenizer:
    """Learns merges from texts and the two prompts until vocab - 5 entries exist, then adds the special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab - len(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    prompts = [INIT_PROMPT, ANSWER_PROMPT.format(question="")]
    for special in SPECIAL_TOKENS:
        prompts = [text.replace(special, "\n") for text in prompts]
    tokenizer.train_from_iterator(itertools.chain(texts, prompts * 50), trainer)
    missing = vocab - len(SPECIAL_TOKENS) - tokenizer.get_vocab_size()
    if missing > 0:
        raise ValueError(
            f"the corpus gives {missing} merges too few for a vocabulary of {vocab}; lower TextConfig.vocab"
        )
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL_TOKENS])
    return tokenizer


class Prompts:
    """Token ids of the three texts the method feeds, and the way back."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.init_ids = self.ids(INIT_PROMPT)
        self.eos = tokenizer.token_to_id(TURN_END)

    def ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def answer_prompt(self, question: str) -> list[int]:
        return self.ids(ANSWER_PROMPT.format(question=question))

    def answer(self, text: str) -> list[int]:
        return self.ids(text) + [self.eos]

    def text(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)
