# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Writes a folder of Hugging Face with one thing wrong in it: KIND FOLDER."""

import os
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../../EndToEnd"))
import numpy as np  # noqa: E402
import tiny_models  # noqa: E402

GEMMA = {"hidden_activation": "gelu_pytorch_tanh"}
# Model type, and what its config.json has besides.
CONFIGS = {
    "type": ("gemma4", {}),
    "missing": ("llama", {"num_hidden_layers": None}),
    "zero": ("llama", {"num_attention_heads": 0}),
    "layers": ("llama", {"num_hidden_layers": 1025}),
    "float": ("llama", {"hidden_size": 96.5}),
    "activation": ("llama", {"hidden_act": "gelu"}),
    "bias": ("llama", {"attention_bias": True}),
    "scale": ("llama", {"logits_scaling": 8}),
    "quantized": ("llama", {"quantization_config": {"bits": 4}}),
    "window": ("mistral", {"sliding_window": 0}),
    "types": ("gemma2", {**GEMMA, "layer_types": ["full_attention", "chunked"]}),
    "count": ("gemma2", {**GEMMA, "layer_types": ["full_attention"]}),
    "cap": ("gemma2", {**GEMMA, "attn_logit_softcapping": -1.0}),
    "cap-of-llama": ("llama", {"final_logit_softcapping": 30.0}),
    "gelu": ("gemma", {"hidden_act": "gelu"}),
    "rope": ("llama", {"rope_scaling": {"rope_type": "spiral"}}),
    "factor": ("llama", {"rope_scaling": {"type": "linear", "factor": 0}}),
    "factors": (
        "phi3",
        {"rope_scaling": tiny_models.long_rope(5), "original_max_position_embeddings": 64},
    ),
    "still": ("smollm3", {"no_rope_layers": [1]}),
    "part": ("phi3", {"partial_rotary_factor": 0.3}),
    "parts": ("llama", {"partial_rotary_factor": 0.5}),
    "end": ("llama", {"eos_token_id": 211}),
    "odd": ("llama", {"head_dim": 63}),
    "names": (
        "llama",
        {"rope_parameters": {"rope_theta": 1e4}, "rope_scaling": {"type": "linear", "factor": 4}},
    ),
    "nested": ("llama", {"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}),
    "flat": ("gemma3_text", {**GEMMA, "rope_parameters": {"rope_theta": 1e4}}),
    "theta": (
        "gemma3_text",
        {**GEMMA, "rope_parameters": {"full_attention": {"rope_theta": 1e4}, "sliding_attention": {}}},
    ),
    "cap-of-gemma3": ("gemma3_text", {**GEMMA, "attn_logit_softcapping": 5.0}),
    "original": (
        "phi3",
        {"rope_scaling": tiny_models.long_rope(32), "original_max_position_embeddings": None},
    ),
    "tied": ("llama", {"tie_word_embeddings": True}),
}


def main():
    kind, path = sys.argv[1:]
    model_type, changes = CONFIGS.get(kind, ("llama", {}))
    if kind == "copied":
        changes = {"tie_word_embeddings": True}
    config = tiny_models.config_of("llama")
    tensors = tiny_models.folder_tensors(config, 1)
    config = tiny_models.config_of(model_type, **changes)
    up = "model.layers.0.mlp.up_proj.weight"
    if kind == "tensor":
        del tensors[up]
    elif kind == "shape":
        tensors[up] = tensors[up].T
    elif kind == "extra":
        tensors["model.layers.0.self_attn.q_proj.bias"] = np.zeros(192, np.float32)
    elif kind == "nan":
        tensors[up][3, 5] = np.nan
    elif kind in ("tied", "copied"):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] * 1
        tensors["lm_head.weight"][7, 2] += kind == "tied"
    shutil.rmtree(path, ignore_errors=True)
    tiny_models.write_folder(path, config, tensors)
    if kind == "weights":
        os.remove(os.path.join(path, "model.safetensors"))
    elif kind == "json":
        with open(os.path.join(path, "config.json"), "w", encoding="utf-8") as file:
            file.write("[1]")


main()
