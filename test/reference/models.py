# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Decoders as files have them, in float64: GGUF files and Hugging Face folders.

Nothing is shared with kvrm, and nothing is reordered: each tensor stays in the
order of its file, and the model says which elements turn with which.
"""

import json
import math
import os
import sys

import gguf
import numpy as np


def round_to(values, kind):
    """Rounds an array to f16, bf16, f8e4m3, int8 or f32 (to nearest even, f8e4m3
    cut off at 448, int8 with a scale for each row); returns float64."""
    if kind == "f64":
        return np.asarray(values, np.float64)
    # Rounding twice, by way of float32, could differ from rounding once, but
    # weights are float32 to begin with, and for KV kvrm does the same.
    single = np.ascontiguousarray(values, np.float32)
    if kind == "f16":
        single = single.astype(np.float16)
    elif kind == "bf16":
        bits = single.view(np.uint32)
        bits = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
        single = (bits & np.uint32(0xFFFF0000)).view(np.float32)
    elif kind == "f8e4m3":
        size = np.minimum(np.abs(single.astype(np.float64)), 448)
        # Three bits behind the first, or steps of 2^-9 below 2^-6.
        step = np.ldexp(1.0, np.maximum(np.frexp(size)[1] - 1, -6) - 3)
        return np.copysign(np.rint(size / step) * step, single)
    elif kind == "int8":
        scales = int8_scales(single)
        codes = np.divide(single, scales, out=np.zeros_like(single), where=scales > 0)
        return np.rint(codes).astype(np.float64) * scales
    return single.astype(np.float64)


def int8_scales(rows):
    """The largest magnitude of each row over 127, rounded up to bf16."""
    scales = np.abs(rows).max(-1, keepdims=True) / np.float32(127)
    bits = (scales.view(np.uint32) + np.uint32(0xFFFF)) & np.uint32(0xFFFF0000)
    return bits.view(np.float32)


def fail(message):
    sys.exit(f"reference: error: {message}")


class Model:
    """What all have in common. `blocks` has a dict of weights a layer, where
    what a model lacks is not there."""

    def __init__(self):
        self.heads = self.kv_heads = self.head_dim = self.layers = 0
        self.epsilon = 1e-5
        self.frequencies = None  # of each pair, radians a token
        self.magnitude = 1.0
        self.neighbours = False  # 2i turns with 2i + 1, else i with i + dim / 2
        self.turns = []  # of each layer
        self.local_frequencies = None  # of layers with a window, if others
        self.windows = []  # of each layer: tokens that one sees, 0: all
        self.gelu = False  # in place of SiLU, by its form with a tanh
        self.embedding_scale = 1.0
        self.attention_scale = 0.0  # 0: 1 / sqrt(head_dim)
        self.attention_softcap = self.logit_softcap = 0.0  # 0: none
        self.embedding = self.output_norm = self.output = None
        self.blocks = []

    def norm(self, x, weight):
        mean = np.mean(x * x, axis=-1, keepdims=True)
        return x / np.sqrt(mean + self.epsilon) * weight

    def rotate(self, x, positions, layer):
        """Turns the first elements of each head: x is [n][heads][dim]."""
        frequencies = self.frequencies
        if self.windows[layer] and self.local_frequencies is not None:
            frequencies = self.local_frequencies
        angles = positions[:, None, None] * frequencies
        cos, sin = self.magnitude * np.cos(angles), self.magnitude * np.sin(angles)
        pairs = len(self.frequencies)
        if self.neighbours:
            first, second = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
        else:
            first, second = slice(0, pairs), slice(pairs, 2 * pairs)
        out = x.copy()
        out[..., first] = x[..., first] * cos - x[..., second] * sin
        out[..., second] = x[..., first] * sin + x[..., second] * cos
        return out

    def heads_of(self, layer, name, h):
        """Query, key or value of tokens, [n][heads][head_dim]."""
        block = self.blocks[layer]
        x = h @ block[f"attn_{name}"].T + block.get(f"attn_{name}_bias", 0.0)
        gain = block.get(f"attn_{name}_norm")
        if gain is not None and len(gain) == x.shape[-1] != self.head_dim:
            x = self.norm(x, gain)
        x = x.reshape(len(x), -1, self.head_dim)
        if gain is not None and len(gain) == self.head_dim:
            x = self.norm(x, gain)
        return x

    def before(self, layer, name, x):
        gain = self.blocks[layer].get(f"{name}_norm")
        return x if gain is None else self.norm(x, gain)

    def after(self, layer, name, x):
        gain = self.blocks[layer].get(f"{name}_post_norm")
        return x if gain is None else self.norm(x, gain)


def open_model(path, weight_type="f16", capacity=0):
    """The model at `path`. `capacity` is the tokens of a slot, by which some
    models choose their angles; 0: the model's context."""
    if os.path.isdir(path):
        return open_folder(path, weight_type, capacity)
    return open_gguf(path, weight_type, capacity)


# ------------------------------------------------------------------------------
# Angles
# ------------------------------------------------------------------------------


def plain_frequencies(theta, dim):
    return float(theta) ** (-2.0 * np.arange(dim // 2) / dim)


def yarn(frequencies, theta, dim, factor, context, fast=32.0, slow=1.0, whole=True):
    def pair(turns):
        return dim * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = pair(fast), pair(slow)
    if whole:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001
    ramp = np.clip((np.arange(dim // 2) - low) / (high - low), 0, 1)
    return frequencies / factor * ramp + frequencies * (1 - ramp)


def yarn_magnitude(factor, scale=1.0):
    return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0


def llama3(frequencies, factor, low, high, context):
    wavelengths = 2 * math.pi / frequencies
    smooth = (context / wavelengths - low) / (high - low)
    between = (1 - smooth) * frequencies / factor + smooth * frequencies
    return np.where(
        wavelengths > context / low,
        frequencies / factor,
        np.where(wavelengths < context / high, frequencies, between),
    )


# ------------------------------------------------------------------------------
# GGUF
# ------------------------------------------------------------------------------

GGUF_KINDS = {
    "llama", "qwen2", "qwen3", "phi3", "smollm3", "olmo2", "gemma", "gemma2", "gemma3"
}


def open_gguf(path, weight_type, capacity):
    reader = gguf.GGUFReader(path)
    tensors = {t.name: t for t in reader.tensors}

    def value(key, default=None):
        field = reader.get_field(key.replace("*", kind))
        if field is None:
            if default is None:
                fail(f"{path}: '{key}' is missing")
            return default
        return field.contents()

    def load(name):
        tensor = tensors[name]
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        return round_to(values, weight_type if values.ndim == 2 else "f32")

    kind = ""
    kind = value("general.architecture")
    if kind not in GGUF_KINDS:
        fail(f"{path}: '{kind}' is not one of {', '.join(sorted(GGUF_KINDS))}")
    model = Model()
    model.layers = value("*.block_count")
    model.heads = value("*.attention.head_count")
    model.kv_heads = value("*.attention.head_count_kv", model.heads)
    hidden = value("*.embedding_length")
    model.head_dim = value("*.attention.key_length", hidden // model.heads)
    model.epsilon = value("*.attention.layer_norm_rms_epsilon")
    model.neighbours = kind in ("llama", "smollm3")
    model.turns = [kind != "smollm3" or (i + 1) % 4 for i in range(model.layers)]
    gguf_angles(model, value, load, tensors, capacity)
    every = {"gemma2": 2, "gemma3": 6}.get(kind, 0)
    every = value("*.attention.sliding_window_pattern", every)
    model.windows = [
        0 if every and (i + 1) % every == 0 else value("*.attention.sliding_window", 0)
        for i in range(model.layers)
    ]
    model.attention_softcap = value("*.attn_logit_softcapping", 0.0)
    model.logit_softcap = value("*.final_logit_softcapping", 0.0)
    if kind.startswith("gemma"):
        model.gelu = True
        model.embedding_scale = math.sqrt(hidden)
    if kind == "gemma3":
        theta = value("*.rope.freq_base_swa", 10000.0)
        model.local_frequencies = plain_frequencies(theta, model.head_dim)

    model.embedding = load("token_embd.weight")
    model.output_norm = load("output_norm.weight")
    model.output = (
        load("output.weight") if "output.weight" in tensors else model.embedding
    )
    renamed = {"post_attention_norm": "attn_post_norm", "post_ffw_norm": "ffn_post_norm"}
    for layer in range(model.layers):
        prefix, block = f"blk.{layer}.", {}
        for name in tensors:
            if name.startswith(prefix):
                stem, end = name[len(prefix) :].rsplit(".", 1)
                stem = renamed.get(stem, stem)
                block[stem if end == "weight" else f"{stem}_{end}"] = load(name)
        split_fused(model, block, "attn_qkv", "ffn_up")
        model.blocks.append(block)
    return model


def gguf_angles(model, value, load, tensors, capacity):
    dim = value("*.rope.dimension_count", model.head_dim)
    theta = float(value("*.rope.freq_base", 10000.0))
    model.frequencies = plain_frequencies(theta, dim)
    factor = float(value("*.rope.scaling.factor", 1.0))
    context = value("*.context_length")
    original = value("*.rope.scaling.original_context_length", context)
    scaling = value("*.rope.scaling.type", "linear")
    if scaling == "linear":
        model.frequencies = model.frequencies / factor
    elif scaling == "yarn":
        model.frequencies = yarn(model.frequencies, theta, dim, factor, original)
        model.magnitude = yarn_magnitude(factor)
    length = "long" if (capacity or context) > original else "short"
    for name in ("rope_freqs.weight", f"rope_factors_{length}.weight"):
        if name in tensors:
            model.frequencies = model.frequencies / load(name)
    model.magnitude *= float(value("*.rope.scaling.attn_factor", 1.0))


def split_fused(model, block, qkv, gate_up):
    """Takes apart what is one tensor in the file."""
    if qkv in block:
        q, kv = model.heads * model.head_dim, model.kv_heads * model.head_dim
        parts = np.split(block.pop(qkv), [q, q + kv])
        block["attn_q"], block["attn_k"], block["attn_v"] = parts
    if "ffn_gate" not in block:
        block["ffn_gate"], block["ffn_up"] = np.split(block.pop(gate_up), 2)


# ------------------------------------------------------------------------------
# Folders
# ------------------------------------------------------------------------------

FOLDER_KINDS = {
    "llama", "mistral", "qwen2", "qwen3", "phi3", "smollm3", "olmo2",
    "gemma", "gemma2", "gemma3_text",
}


def folder_tensors(path):
    """All tensors, as float32, by name."""
    tensors = {}
    for name in sorted(os.listdir(path)):
        if not name.endswith(".safetensors"):
            continue
        with open(os.path.join(path, name), "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
            data = file.read()
        header.pop("__metadata__", None)
        for key, entry in header.items():
            begin, end = entry["data_offsets"]
            tensors[key] = to_floats(entry["dtype"], data[begin:end]).reshape(
                entry["shape"]
            )
    return tensors


def to_floats(kind, data):
    if kind == "BF16":
        bits = np.frombuffer(data, np.uint16).astype(np.uint32) << np.uint32(16)
        return bits.view(np.float32)
    types = {"F16": np.float16, "F32": np.float32, "F64": np.float64}
    return np.frombuffer(data, types[kind]).astype(np.float32)


def open_folder(path, weight_type, capacity):
    with open(os.path.join(path, "config.json"), encoding="utf-8") as file:
        config = {k: v for k, v in json.load(file).items() if v is not None}
    kind = config["model_type"]
    if kind not in FOLDER_KINDS:
        fail(f"{path}: '{kind}' is not one of {', '.join(sorted(FOLDER_KINDS))}")
    model = Model()
    model.layers = config["num_hidden_layers"]
    model.heads = config["num_attention_heads"]
    model.kv_heads = config.get("num_key_value_heads", model.heads)
    model.head_dim = config.get("head_dim", config["hidden_size"] // model.heads)
    model.epsilon = config["rms_norm_eps"]
    model.turns = [True] * model.layers
    if kind == "smollm3":
        every = config.get("no_rope_layer_interval", 4)
        model.turns = config.get(
            "no_rope_layers", [(i + 1) % every for i in range(model.layers)]
        )
    folder_angles(model, config, kind, capacity)
    folder_windows(model, config, kind)
    if kind.startswith("gemma"):
        model.gelu = True
        model.embedding_scale = math.sqrt(config["hidden_size"])
    if kind in ("gemma2", "gemma3_text"):
        model.attention_scale = config["query_pre_attn_scalar"] ** -0.5
        model.attention_softcap = config.get("attn_logit_softcapping", 0.0)
        model.logit_softcap = config.get("final_logit_softcapping", 0.0)

    tensors = {
        name: round_to(t, weight_type if t.ndim == 2 else "f32")
        for name, t in folder_tensors(path).items()
    }
    model.embedding = tensors["model.embed_tokens.weight"]
    model.output_norm = tensors["model.norm.weight"] + kind.startswith("gemma")
    ties = config.get("tie_word_embeddings", kind in TIED_KINDS)
    model.output = model.embedding if ties else tensors["lm_head.weight"]
    for layer in range(model.layers):
        model.blocks.append(folder_block(model, kind, tensors, layer))
    return model


def folder_block(model, kind, tensors, layer):
    names = {
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
        "mlp.gate_up_proj": "ffn_gate_up",
        "mlp.down_proj": "ffn_down",
        "post_feedforward_layernorm": "ffn_post_norm",
    }
    if kind in ("olmo2", "gemma2", "gemma3_text"):
        names["post_attention_layernorm"] = "attn_post_norm"
        names["pre_feedforward_layernorm"] = "ffn_norm"
    prefix, block = f"model.layers.{layer}.", {}
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            stem, end = name[len(prefix) :].rsplit(".", 1)
            if kind.startswith("gemma") and tensor.ndim == 1:
                tensor = 1.0 + tensor
            block[names[stem] + ("" if end == "weight" else f"_{end}")] = tensor
    split_fused(model, block, "attn_qkv", "ffn_gate_up")
    return block


TIED_KINDS = {"smollm3", "gemma", "gemma2", "gemma3_text"}


def folder_windows(model, config, kind):
    window, layers = config.get("sliding_window", 0), range(model.layers)
    is_typed = kind != "phi3" and "layer_types" in config
    is_switched = kind in ("qwen2", "qwen3") or (kind == "smollm3" and not is_typed)
    if is_switched and not config.get("use_sliding_window"):
        window = 0
    sees = [bool(window)] * model.layers
    if kind in ("qwen2", "qwen3"):
        sees = [i >= config.get("max_window_layers", 28) for i in layers]
    elif kind == "smollm3":
        sees = [not turns for turns in model.turns]
    elif kind.startswith("gemma"):
        every = {"gemma": 1, "gemma2": 2}.get(kind, 6)
        every = config.get("sliding_window_pattern", every)
        sees = [(i + 1) % every for i in layers]
    if is_typed:
        sees = [name == "sliding_attention" for name in config["layer_types"]]
    model.windows = [window if seen else 0 for seen in sees]


def folder_angles(model, config, kind, capacity):
    """As transformers' modeling_rope_utils.py has it, but for LongRoPE: a static
    graph has one set of factors, by the tokens of a slot."""
    scaling = config.get("rope_parameters", config.get("rope_scaling", {}))
    local = config.get("rope_local_base_freq", 1e4)
    if "sliding_attention" in scaling:
        local = scaling["sliding_attention"]["rope_theta"]
    scaling = scaling.get("full_attention", scaling)
    if kind == "gemma3_text":
        model.local_frequencies = plain_frequencies(local, model.head_dim)

    def either(key, default):
        return scaling.get(key, config.get(key, default))

    theta = {"smollm3": 2e6, "gemma3_text": 1e6}.get(kind, 1e4)
    theta = float(either("rope_theta", theta))
    dim = int(model.head_dim * either("partial_rotary_factor", 1.0))
    context = config["max_position_embeddings"]
    original = either("original_max_position_embeddings", context)
    factor = scaling.get("factor", context / original)
    name = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "phi3" and name in ("su", "yarn"):
        name = "longrope"
    model.frequencies = plain_frequencies(theta, dim)
    if name == "linear":
        model.frequencies = model.frequencies / factor
    elif name == "llama3":
        model.frequencies = llama3(
            model.frequencies,
            factor,
            scaling["low_freq_factor"],
            scaling["high_freq_factor"],
            original,
        )
    elif name == "yarn":
        model.frequencies = yarn(
            model.frequencies,
            theta,
            dim,
            factor,
            original,
            scaling.get("beta_fast", 32),
            scaling.get("beta_slow", 1),
            scaling.get("truncate", True),
        )
        scales = scaling.get("mscale"), scaling.get("mscale_all_dim")
        model.magnitude = (
            yarn_magnitude(factor, scales[0]) / yarn_magnitude(factor, scales[1])
            if all(scales)
            else yarn_magnitude(factor)
        )
    elif name == "longrope":
        length = "long" if (capacity or context) > original else "short"
        model.frequencies = model.frequencies / np.asarray(scaling[f"{length}_factor"])
        if factor > 1:
            model.magnitude = math.sqrt(1 + math.log(factor) / math.log(original))
    elif name not in ("default", "dynamic"):
        fail(f"rope_type '{name}' is not known")
    if name in ("yarn", "longrope") and "attention_factor" in scaling:
        model.magnitude = scaling["attention_factor"]
