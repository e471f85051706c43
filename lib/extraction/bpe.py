"""Tokenizers of the book's own: byte-pair encoding trained here, and merged.

Training is deterministic: the same text and size give the same tokenizer, byte for byte.
The merge algorithm is Sennrich et al. (2016), as in the `tokenizers` library.
"""

import json
from collections.abc import Iterator

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.pre_tokenizers import ByteLevel

LEVELS = ("character", "byte")
WORDS = r" ?\S+|\s+"  # a word with the space before it, or white space: no knowledge of scripts
PIECE = 20_000  # characters encoded at a time (order of magnitude)


class BpeError(ValueError):
    """A tokenizer cannot be trained, merged, or used on this text."""


def train(text: str, vocab_size: int, level: str = "character") -> Tokenizer:
    """A BPE tokenizer of `vocab_size` tokens trained on `text`, whose words are those of WORDS.

    level "character": the alphabet is the text's characters, so tokens are readable strings.
    level "byte": the alphabet is all 256 bytes (GPT-2's byte-to-character table spells them).
    Raises BpeError if the text has not enough pairs to reach `vocab_size`.
    """
    if level not in LEVELS:
        raise BpeError(f"level must be one of {', '.join(LEVELS)}, got {level!r}")
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(WORDS), "isolated")
    if level == "byte":
        byte_level = ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
        tokenizer.decoder = decoders.ByteLevel()
        letters = sorted(ByteLevel.alphabet())
    else:
        tokenizer.pre_tokenizer = split
        tokenizer.decoder = decoders.Fuse()
        letters = sorted(set(text))
    if vocab_size < len(letters):
        raise BpeError(f"vocab_size {vocab_size} is below the alphabet's {len(letters)}")
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=letters, show_progress=False
    )
    tokenizer.train_from_iterator(pieces(text), trainer)
    if tokenizer.get_vocab_size() != vocab_size:
        raise BpeError(
            f"the text gives {tokenizer.get_vocab_size():,} tokens, {vocab_size:,} were asked for"
        )
    return tokenizer


def merge(first: Tokenizer, second: Tokenizer) -> Tokenizer:
    """The union of two BPEs: `first` keeps its ids and priorities, new tokens of `second` follow.

    Both must split and spell text in the same way. Raises BpeError if they do not.
    """
    one, two = json.loads(first.to_str()), json.loads(second.to_str())
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        if one[part] != two[part]:
            raise BpeError(f"the tokenizers differ in their {part}: they cannot be merged")
    vocabulary = dict(one["model"]["vocab"])
    for token in sorted(two["model"]["vocab"], key=two["model"]["vocab"].get):
        vocabulary.setdefault(token, len(vocabulary))
    merges = list(dict.fromkeys(map(tuple, one["model"]["merges"] + two["model"]["merges"])))
    merged = Tokenizer.from_str(first.to_str())
    merged.model = models.BPE(vocab=vocabulary, merges=merges)
    return merged


def ascii_bytes() -> Tokenizer:
    """128 tokens: token i is the ASCII character i. No merges."""
    tokenizer = Tokenizer(models.BPE(vocab={chr(i): i for i in range(128)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def encode(tokenizer: Tokenizer, text: str) -> np.ndarray:
    """Ids of `text`: (tokens,) uint16, or int32 where the vocabulary is larger than 65,536.

    Raises BpeError if the text has a character that the tokenizer cannot spell.
    """
    ids: list[int] = []
    batch = list(pieces(text))
    for piece, encoding in zip(batch, tokenizer.encode_batch(batch), strict=True):
        if tokenizer.decode(encoding.ids) != piece:
            missing = sorted(set(piece) - set(tokenizer.get_vocab()))
            raise BpeError(f"the tokenizer cannot spell {''.join(missing)[:40]!r}")
        ids += encoding.ids
    return np.array(ids, np.uint16 if tokenizer.get_vocab_size() <= 1 << 16 else np.int32)


def token_texts(tokenizer: Tokenizer) -> list[str]:
    """The text of each id, in order; bytes that are no valid UTF-8 become U+FFFD."""
    vocabulary = tokenizer.get_vocab()
    spelled = sorted(vocabulary, key=vocabulary.get)
    if not isinstance(tokenizer.decoder, decoders.ByteLevel):
        return spelled
    return [tokenizer.decoder.decode([token]) for token in spelled]


def pieces(text: str) -> Iterator[str]:
    """Cut `text` where no pattern of this book can join: between a newline and a non-space.

    Encoding the pieces one by one gives the same ids as encoding the whole.
    """
    start = 0
    while start < len(text):
        stop = start + PIECE
        while stop < len(text):
            stop = text.find("\n", stop) + 1
            if stop == 0:
                stop = len(text)
            elif stop < len(text) and not text[stop].isspace():
                break
        yield text[start:stop]
        start = stop
