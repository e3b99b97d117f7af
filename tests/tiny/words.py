"""Vocabularies of the tiny models: a handful of words, no hub."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertTokenizer, CLIPTokenizer, PreTrainedTokenizerFast

_TEXT = (
    "a the of on with and red blue green yellow apple dog cat bird moon flag house boat star face "
    "smiling round small big picture drawing showing what shows is this in one short sentence say"
)
WORDS = _TEXT.split()


def bert_tokenizer(folder: Path) -> BertTokenizer:
    """A WordPiece tokenizer of `WORDS`."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    path = folder / "bert_vocab.txt"
    path.write_text("\n".join([*special, *WORDS]))
    return BertTokenizer(str(path))


def word_tokenizer(*special: str) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words with begin, end, padding and `special` tokens."""
    names = ["<pad>", "<s>", "</s>", "<unk>", *special, *WORDS]
    tokenizer = Tokenizer(
        models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", names.index("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=list(special),
    )


def clip_tokenizer(folder: Path, max_length: int = 16) -> CLIPTokenizer:
    """CLIP's byte-pair tokenizer without merges: a token is a letter."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,!?'-"
    names = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    vocabulary = folder / "clip_vocab.json"
    vocabulary.write_text(json.dumps({name: index for index, name in enumerate(names)}))
    merges = folder / "clip_merges.txt"
    merges.write_text("#version: 0.2\n")
    return CLIPTokenizer(
        str(vocabulary), str(merges), model_max_length=max_length, pad_token="<|endoftext|>"
    )
