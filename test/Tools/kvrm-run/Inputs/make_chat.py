# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Writes a model that says "hi", ends its turn, and would go on with "z".

    make_chat.py FORM FILE

FORM is llama3 or chatml: what its chat template writes, and which special tokens it
has; or included or picky, a template that is refused, and one that refuses. Tokens 0
to 255 are the bytes; special ones follow, BOS first. Nothing in the file names the
mark that ends a turn: eos is another token.

FORM endless is chatml's model with another answer: "hi", a token that is HTML, and
so on without end. Weights that are zero give its step the work of a small model's.
"""

import math
import random
import struct
import sys

UINT32, FLOAT32, STRING, ARRAY, INT32 = 4, 6, 8, 9, 5
F32, Q4_0 = 0, 2
Q4_0_VALUES, Q4_0_BYTES = 32, 18  # of a block
HIDDEN = 64
# Does something in a page that takes it for more than text.
MARKUP = "<img src=x onerror=\"document.title='taken'\">"
FORMS = {
    "llama3": (
        ["<s>", "</s>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        "{{ bos_token }}{% for m in messages %}"
        "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content + '<|eot_id|>' }}"
        "{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}",
        "<|eot_id|>",
    ),
    "chatml": (
        ["<s>", "</s>", "<|im_start|>", "<|im_end|>"],
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
        "{% endfor %}{{ '<|im_start|>assistant\n' }}",
        "<|im_end|>",
    ),
    "included": (["<s>", "</s>"], "{% include 'other' %}", "</s>"),
    "picky": (["<s>", "</s>"], "{{ raise_exception('No ' ~ messages[0].role) }}", "</s>"),
}
FORMS["endless"] = FORMS["chatml"]


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def strings(values):
    return struct.pack("<IQ", STRING, len(values)) + b"".join(map(text, values))


def byte_alphabet():
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = iter(range(256, 512))
    return [chr(b) if b in visible else chr(next(hidden)) for b in range(256)]


def full(dims, values):
    return dims, F32, struct.pack(f"<{len(values)}f", *values)


def zero(*dims):
    return dims, Q4_0, bytes(math.prod(dims) // Q4_0_VALUES * Q4_0_BYTES)


def weights(vocabulary, chain, layers, inner):
    """Of a model that says what follows in `chain`, whatever came before."""
    # The residual is the last token's embedding, as nothing is added to it; the
    # row of the token that follows points the same way.
    generator = random.Random(1)
    embedding = [[generator.choice((-1.0, 1.0)) for _ in range(HIDDEN)] for _ in range(vocabulary)]
    output = [[0.0] * HIDDEN for _ in range(vocabulary)]
    for last, following in zip(chain, chain[1:]):
        output[following] = embedding[last]
    tensors = {
        "token_embd.weight": full([HIDDEN, vocabulary], sum(embedding, [])),
        "output.weight": full([HIDDEN, vocabulary], sum(output, [])),
        "output_norm.weight": full([HIDDEN], [1.0] * HIDDEN),
    }
    for layer in range(layers):
        block = f"blk.{layer}."
        for name in ("attn", "ffn"):
            tensors[f"{block}{name}_norm.weight"] = full([HIDDEN], [1.0] * HIDDEN)
        for name in ("q", "k", "v", "output"):
            tensors[f"{block}attn_{name}.weight"] = zero(HIDDEN, HIDDEN)
        tensors[block + "ffn_gate.weight"] = zero(HIDDEN, inner)
        tensors[block + "ffn_up.weight"] = zero(HIDDEN, inner)
        tensors[block + "ffn_down.weight"] = zero(inner, HIDDEN)
    return tensors


def main():
    specials, template, end = FORMS[sys.argv[1]]
    is_endless = sys.argv[1] == "endless"
    layers, inner = (4, 32768) if is_endless else (1, 32)
    alphabet = byte_alphabet()
    markup = "".join(alphabet[byte] for byte in MARKUP.encode())
    tokens = alphabet + specials + [markup] * is_endless
    types = [1] * 256 + [3] * len(specials) + [1] * is_endless
    metadata = [
        ("general.architecture", STRING, text("llama")),
        ("general.name", STRING, text("says\x1b[31m hi")),
        ("tokenizer.ggml.model", STRING, text("gpt2")),
        ("tokenizer.ggml.pre", STRING, text("gpt-2")),
        ("tokenizer.ggml.tokens", ARRAY, strings(tokens)),
        (
            "tokenizer.ggml.token_type",
            ARRAY,
            struct.pack(f"<IQ{len(types)}i", INT32, len(types), *types),
        ),
        ("tokenizer.ggml.merges", ARRAY, strings([])),
        ("tokenizer.ggml.bos_token_id", UINT32, struct.pack("<I", 256)),
        ("tokenizer.ggml.eos_token_id", UINT32, struct.pack("<I", 257)),
        ("tokenizer.chat_template", STRING, text(template)),
        ("llama.attention.layer_norm_rms_epsilon", FLOAT32, struct.pack("<f", 1e-5)),
    ]
    for key, value in {
        "block_count": layers,
        "context_length": 1 << 15 if is_endless else 128,
        "embedding_length": HIDDEN,
        "feed_forward_length": inner,
        "attention.head_count": 1,
        "attention.head_count_kv": 1,
    }.items():
        metadata.append(("llama." + key, UINT32, struct.pack("<I", value)))

    newline, h, i, z = map(ord, "\nhiz")
    chain = [newline, h, i, tokens.index(end), z, newline]
    if is_endless:
        chain = [newline, h, i, tokens.index(markup), newline]
    tensors = weights(len(tokens), chain, layers, inner)
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    for key, kind, payload in metadata:
        out += text(key) + struct.pack("<I", kind) + payload
    data = b""
    for name, (dims, kind, values) in tensors.items():
        out += text(name) + struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
        out += struct.pack("<IQ", kind, len(data))
        data += values + b"\0" * (-len(values) % 32)
    out += b"\0" * (-len(out) % 32)
    with open(sys.argv[2], "wb") as file:
        file.write(out + data)


if __name__ == "__main__":
    main()
