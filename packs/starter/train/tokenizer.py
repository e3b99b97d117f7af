"""Train the tokenizers: byte-level BPE (CLIPTokenizer), whole-word WordPiece (BertTokenizer)."""

import json
import re
from collections import Counter

from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import BertTokenizer, CLIPTokenizer

from .words import COLOURS, TEMPLATES

MAX_TOKENS = 24
BPE_VOCABULARY = 4096


def clip_tokenizer(corpus: list[str]) -> CLIPTokenizer:
    """Train a byte-level BPE: an unseen word becomes known pieces, never an unknown token."""
    special = ["<|startoftext|>", "<|endoftext|>"]
    blank = CLIPTokenizer(model_max_length=MAX_TOKENS)
    backend = Tokenizer(BPE(end_of_word_suffix="</w>"))
    backend.normalizer = blank.backend_tokenizer.normalizer
    backend.pre_tokenizer = blank.backend_tokenizer.pre_tokenizer
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=BPE_VOCABULARY,
        special_tokens=special,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    # Every byte once alone, so that each also exists as the end of a word.
    singles = [
        character
        for character in "abcdefghijklmnopqrstuvwxyz0123456789,.;:!?'\"()-/&"
        for _ in range(3)
    ]
    templates = [template.format("") for template in TEMPLATES] * 20
    backend.train_from_iterator(corpus + templates + list(COLOURS) * 20 + singles, trainer)
    model = json.loads(backend.to_str())["model"]
    merges = [
        tuple(pair) if isinstance(pair, list) else tuple(pair.split(" "))
        for pair in model["merges"]
    ]
    return CLIPTokenizer(vocab=model["vocab"], merges=merges, model_max_length=MAX_TOKENS)


def caption_tokenizer(captions: list[str]) -> BertTokenizer:
    """Make a WordPiece of all words that captions use; other words fall back to letters."""
    words = Counter(
        word for text in captions for word in re.findall(r"[a-z]+|[0-9]+|[^\sa-z0-9]", text)
    )
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789"]
    tokens = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "[DEC]",
        *letters,
        *(f"##{x}" for x in letters),
    ]
    tokens += [word for word, _ in words.most_common() if word not in set(letters)]
    return BertTokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        model_max_length=MAX_TOKENS,
        bos_token="[DEC]",
    )
