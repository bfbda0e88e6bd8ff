# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Small decoders of each architecture with random weights, written as Hugging
Face folders and as GGUF files."""

import json
import os

import gguf
import numpy as np

CONTEXT = 256
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}


def long_rope(pairs):
    return {
        "type": "longrope",
        "short_factor": [1.0 + 0.1 * i for i in range(pairs)],
        "long_factor": [1.0 + 0.5 * i for i in range(pairs)],
    }


def config_of(kind, **changes):
    """config.json of a decoder of two layers; odd sizes where there may be."""
    config = {
        "model_type": kind,
        "vocab_size": 211,
        "hidden_size": 96,
        "intermediate_size": 136,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "head_dim": 64,
        "hidden_act": "silu",
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": [2, 3],
    }
    config.update(changes)
    return config


# Name, model_type, and what is different from the above.
VARIANTS = {
    "llama": ("llama", {"rope_theta": 500000.0, "rope_scaling": LLAMA3}),
    "llama-linear": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 5e3}},
    ),
    "llama-dynamic": (
        "llama",
        {"tie_word_embeddings": True, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
    ),
    "mistral": (
        "mistral",
        {"head_dim": None, "num_attention_heads": 6, "num_key_value_heads": 2,
         "sliding_window": CONTEXT},
    ),
    "mistral-window": ("mistral", {"sliding_window": 21}),
    "mistral-typed": (
        "mistral",
        {"sliding_window": 21, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "qwen2": ("qwen2", {"use_sliding_window": False, "sliding_window": 8,
                        "tie_word_embeddings": True}),
    "qwen2-yarn": ("qwen2", {"rope_scaling": YARN}),
    "qwen2-window": ("qwen2", {"num_hidden_layers": 3, "use_sliding_window": True,
                               "sliding_window": 70, "max_window_layers": 1}),
    "qwen3": ("qwen3", {"rms_norm_eps": 1e-6, "head_dim": 64}),
    "phi3": (
        "phi3",
        {"head_dim": None, "hidden_size": 96 * 2, "num_attention_heads": 2,
         "num_key_value_heads": 2, "rope_scaling": long_rope(48),
         "original_max_position_embeddings": 64, "sliding_window": None},
    ),
    "phi3-partial": (
        "phi3",
        {"head_dim": None, "hidden_size": 192, "num_attention_heads": 3,
         "partial_rotary_factor": 0.75, "tie_word_embeddings": True},
    ),
    "phi3-window": ("phi3", {"sliding_window": 64, "rope_theta": 5e3}),
    "smollm3": (
        "smollm3",
        {"num_hidden_layers": 4, "no_rope_layers": [1, 1, 1, 0],
         "tie_word_embeddings": None},
    ),
    "smollm3-typed": (
        "smollm3",
        {"use_sliding_window": False, "sliding_window": 21, "tie_word_embeddings": None,
         "no_rope_layers": [1, 0], "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "olmo2": ("olmo2", {"num_attention_heads": 4, "num_key_value_heads": 2}),
    "gemma": (
        "gemma",
        {"hidden_act": "gelu_pytorch_tanh", "tie_word_embeddings": True,
         "head_dim": 256},
    ),
    "gemma2": (
        "gemma2",
        {"hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": True,
         "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
         "sliding_window": 19, "query_pre_attn_scalar": 48,
         "attn_logit_softcapping": 5.0, "final_logit_softcapping": 15.0},
    ),
    "gemma3": (
        "gemma3_text",
        {"hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": True,
         "num_hidden_layers": 7, "num_attention_heads": 4, "head_dim": 128,
         "sliding_window": 33, "query_pre_attn_scalar": 128,
         "attn_logit_softcapping": None, "final_logit_softcapping": None,
         "rope_theta": 1e6, "rope_local_base_freq": 5e3,
         "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
    ),
}

# Those that write_gguf() can write.
GGUF_VARIANTS = {
    "mistral", "mistral-window", "qwen2", "qwen2-yarn", "qwen3", "phi3", "phi3-window",
    "smollm3", "olmo2", "gemma", "gemma2", "gemma3",
}


def folder_tensors(config, seed, dtype=np.float32):
    """Tensors by name, as transformers' class of the architecture names them."""
    random = np.random.default_rng(seed)
    kind, hidden = config["model_type"], config["hidden_size"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    dim = config["head_dim"] or hidden // heads
    ffn, vocab = config["intermediate_size"], config["vocab_size"]
    tensors = {}

    def matrix(name, rows, cols, scale=1.0):
        values = random.standard_normal((rows, cols)) * scale / np.sqrt(cols)
        tensors[name + ".weight"] = values.astype(dtype)

    def vector(name, count, center, end="weight"):
        values = center + 0.2 * random.standard_normal(count)
        tensors[f"{name}.{end}"] = values.astype(np.float32)

    matrix("model.embed_tokens", vocab, hidden, np.sqrt(hidden))
    ties = config["tie_word_embeddings"]
    if not (kind == "smollm3" if ties is None else ties):
        matrix("lm_head", vocab, hidden)
    # Gemmas add 1 to the weights of norms.
    center = 0.0 if kind.startswith("gemma") else 1.0
    vector("model.norm", hidden, center)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        rows = {"q": heads * dim, "k": kv_heads * dim, "v": kv_heads * dim}
        if kind == "phi3":
            matrix(prefix + "self_attn.qkv_proj", sum(rows.values()), hidden)
            matrix(prefix + "mlp.gate_up_proj", 2 * ffn, hidden)
        else:
            for name, count in rows.items():
                matrix(prefix + f"self_attn.{name}_proj", count, hidden)
                if kind == "qwen2":
                    vector(prefix + f"self_attn.{name}_proj", count, 0.0, "bias")
            matrix(prefix + "mlp.gate_proj", ffn, hidden)
            matrix(prefix + "mlp.up_proj", ffn, hidden)
        if kind in ("qwen3", "olmo2", "gemma3_text"):
            for name in "qk":
                count = rows[name] if kind == "olmo2" else dim
                vector(prefix + f"self_attn.{name}_norm", count, center)
        matrix(prefix + "self_attn.o_proj", hidden, heads * dim, 0.7)
        matrix(prefix + "mlp.down_proj", hidden, ffn, 0.7)
        norms = ["post_attention", "post_feedforward" if kind == "olmo2" else "input"]
        if kind in ("gemma2", "gemma3_text"):
            norms += ["pre_feedforward", "post_feedforward"]
        for name in norms:
            vector(prefix + f"{name}_layernorm", hidden, center)
    return tensors


def write_safetensors(path, tensors):
    header, data = {}, b""
    types = {"float16": "F16", "float32": "F32", "float64": "F64"}
    for name, values in tensors.items():
        raw = np.ascontiguousarray(values).tobytes()
        header[name] = {
            "dtype": types[values.dtype.name],
            "shape": list(values.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text + data)


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file)


def write_folder(path, config, tensors, shards=1):
    os.makedirs(path, exist_ok=True)
    write_json(os.path.join(path, "config.json"), config)
    if shards == 1:
        write_safetensors(os.path.join(path, "model.safetensors"), tensors)
        return
    places, parts = {}, [{} for _ in range(shards)]
    for i, (name, values) in enumerate(tensors.items()):
        places[name] = f"model-{i % shards + 1:05}-of-{shards:05}.safetensors"
        parts[i % shards][name] = values
    for i, part in enumerate(parts):
        name = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        write_safetensors(os.path.join(path, name), part)
    index = os.path.join(path, "model.safetensors.index.json")
    write_json(index, {"metadata": {}, "weight_map": places})


GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def gguf_name(kind, name):
    stem, end = name.rsplit(".", 1)
    prefix = ""
    if stem.startswith("model.layers."):
        _, _, layer, stem = stem.split(".", 3)
        prefix = f"blk.{layer}."
    around = kind in ("olmo2", "gemma2", "gemma3")
    if around and stem == "post_attention_layernorm":
        stem = "post_attention_norm"
    return f"{prefix}{GGUF_NAMES.get(stem, stem)}.{end}"


def neighbours(values, heads):
    """The rows of each head, those that turn together side by side."""
    shape = values.shape
    return values.reshape(heads, 2, -1, *shape[1:]).swapaxes(1, 2).reshape(shape)


def write_gguf(path, config, tensors, encode=None, add_more=None):
    """As llama.cpp's converter does; of scalings, those of the variants. `encode`
    gives bytes and type of a matrix that is not to be f32, by its name. With
    `add_more` that adds keys of its own, a tokenizer's perhaps."""
    kind = config["model_type"]
    kind = {"mistral": "llama", "gemma3_text": "gemma3"}.get(kind, kind)
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    dim = config["head_dim"] or config["hidden_size"] // heads
    writer = gguf.GGUFWriter(path, kind)
    writer.add_name("tiny")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(dim)
    writer.add_value_length(dim)
    writer.add_rope_dimension_count(dim)
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    if config.get("sliding_window") and kind in ("llama", "phi3", "gemma2", "gemma3"):
        writer.add_sliding_window(config["sliding_window"])
    if kind == "gemma2":
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    scaling = config.get("rope_scaling") or {}
    if kind == "gemma3":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(scaling["factor"])
        writer.add_float32("gemma3.rope.freq_base_swa", config["rope_local_base_freq"])
    if scaling.get("type") == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(scaling["factor"])
        writer.add_rope_scaling_orig_ctx_len(
            scaling["original_max_position_embeddings"]
        )
    elif scaling.get("type") == "longrope":
        original = config["original_max_position_embeddings"]
        ratio = config["max_position_embeddings"] / original
        writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_rope_scaling_attn_factors(
            float(np.sqrt(1 + np.log(ratio) / np.log(original)))
        )
        for length in ("short", "long"):
            factors = np.asarray(scaling[f"{length}_factor"], np.float32)
            writer.add_tensor(f"rope_factors_{length}.weight", factors)
    if add_more:
        add_more(writer)
    for name, values in tensors.items():
        if kind in ("llama", "smollm3"):
            if ".q_proj." in name:
                values = neighbours(values, heads)
            elif ".k_proj." in name:
                values = neighbours(values, kv_heads)
        if kind.startswith("gemma") and values.ndim == 1:
            values = np.float32(1) + values
        if encode and values.ndim == 2:
            raw, raw_type = encode(gguf_name(kind, name), values)
            writer.add_tensor(gguf_name(kind, name), raw, raw_dtype=raw_type)
            continue
        writer.add_tensor(gguf_name(kind, name), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
