"""A tiny causal language model with a chat template, as safetensors and as GGUF: equal weights."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GGUF_NAME = "tiny.gguf"
_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_MERGES = [("a", "t"), ("c", "at"), ("Ġ", "a")]
_NUM_HEADS = 4


def save_llama(folder: Path, *, template: str = TEMPLATE, max_length: int = 2048) -> Path:
    """The model as a folder of safetensors."""
    tokenizer = _tokenizer(template)
    tokenizer.save_pretrained(folder)
    _llama(len(tokenizer), max_length).save_pretrained(folder)
    return folder


def save_gguf(folder: Path) -> Path:
    """The model as a GGUF file, with the names and the layout of llama.cpp."""
    tokens = [*_SPECIAL, *_letters(), *("".join(pair) for pair in _MERGES)]
    model = _llama(len(tokens), 2048)
    config = model.config
    path = folder / GGUF_NAME
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_token_types([control if token in _SPECIAL else normal for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in _MERGES])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(TEMPLATE)
    for name, tensor in model.state_dict().items():
        writer.add_tensor(*_converted(name, tensor.numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _converted(name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    """Name and layout of a tensor in llama.cpp: rotated pairs lie side by side there."""
    if "q_proj" in name or "k_proj" in name:
        rows, columns = array.shape
        halves = array.reshape(_NUM_HEADS, 2, rows // _NUM_HEADS // 2, columns)
        array = np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows, columns)
    new = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }.get(name)
    if new is None:
        _, _, block, *rest = name.split(".")
        part = {
            "self_attn.q_proj": "attn_q",
            "self_attn.k_proj": "attn_k",
            "self_attn.v_proj": "attn_v",
            "self_attn.o_proj": "attn_output",
            "mlp.gate_proj": "ffn_gate",
            "mlp.up_proj": "ffn_up",
            "mlp.down_proj": "ffn_down",
            "input_layernorm": "attn_norm",
            "post_attention_layernorm": "ffn_norm",
        }[".".join(rest[:-1])]
        new = f"blk.{block}.{part}.weight"
    return new, array


def _letters() -> list[str]:
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _tokenizer(template: str) -> PreTrainedTokenizerFast:
    """Byte-pair encoding of single bytes and three merges."""
    names = [*_SPECIAL, *_letters(), *("".join(pair) for pair in _MERGES)]
    tokenizer = Tokenizer(models.BPE({name: n for n, name in enumerate(names)}, _MERGES))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        unk_token="<|endoftext|>",
        chat_template=template or None,
    )


def _llama(num_tokens: int, max_length: int) -> LlamaForCausalLM:
    """Weights large enough that answers depend on the prompt, and on its last words most."""
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=num_tokens,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=_NUM_HEADS,
        num_key_value_heads=_NUM_HEADS,
        max_position_embeddings=max_length,
        bos_token_id=1,
        eos_token_id=2,
        initializer_range=0.3,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config).eval()
