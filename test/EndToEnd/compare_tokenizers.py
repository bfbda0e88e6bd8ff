#!/usr/bin/env python3
# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Judges tokenizers of packages by Hugging Face's library `tokenizers`.

Small ones are trained on the texts below, built as GPT-2, SmolLM, Llama 3,
Qwen2, Llama 2 and Mistral build theirs, and go to packages in the folder of a tiny model.
Then many texts, and random ones, go through both. With --tokenizer a file of
somebody else's is judged the same way. GGUF files with SentencePiece's BPE are
judged by its algorithm, as it is described: of all neighbours that make a piece
those of the highest score are joined, the first of equal ones, and again.

    compare_tokenizers.py --work /tmp/tokenizers [--tokenizer tokenizer.json]
"""

import json
import os
import re
import time
import unicodedata

import harness
import numpy as np
import tiny_models
import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers import normalizers as norms
from tokenizers import pre_tokenizers as splits
from tokenizers import processors

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

BOS = 0  # of those that add one

TEXTS = [
    "Hello, world!",
    " leading space",
    "trailing space ",
    "  two  spaces   three    four",
    "tabs\tand\nnewlines\r\n\r\n\n\nmany",
    "\n",
    " ",
    "   ",
    "def f(x):\n    if x > 0:\n\treturn {'a': [1, 2.50, 0xFF]}  # comment\n",
    "for (int i = 0; i < 1000000; ++i) { printf(\"%d\\n\", arr[i] & ~0x7f); }",
    "It's what they've said; I'LL go, you'd stay. CAN'T",
    "3.14159 2024-11-27 1234567890 ½ Ⅷ ٣٤٥ ①②",
    "日本語のテキストと漢字。中文，标点！한국어도 있습니다",
    "Здравствуй, мир! Γειά σου Κόσμε שלום עולם مرحبا بالعالم नमस्ते",
    "😀 emoji 👩‍👩‍👧‍👦 family 🇩🇪 flag 👍🏽 tone",
    "café cafe\u0301 A\u030a Å ﬁ \u1e9b\u0323 \u0958 가 가",
    "zero\u200bwidth\u200djoin\ufeffmark soft\u00adhyphen nb\u00a0space \u3000wide",
    "control \x01\x02\x1b[31m\x7f chars",
    "\u2581 a mark ▁▁ of SentencePiece",
    "<s>special</s> <|end|>text<|end|> after <0x41> <unk>",
    "stripped  <|user|> \n\u00a0 behind, before \t\u3000<mask> alone",
    "<mask>  <|user|>   ", "  <mask>", " \n<|user|>\n",
    "a" * 200,
    "https://example.org/path?query=1&b=%20#frag user@example.com",
    "ſhort ſ'ſ İstanbul ǅ",
    "\U0001d54f\U0001f9ff\U00010348 astral",
]
# An added token is not learned.
TRAINING = [text for text in TEXTS if "<" not in text] * 3


def byte_level(pre, normalizer=None, **model):
    tokenizer = Tokenizer(tokenizers.models.BPE(**model))
    tokenizer.pre_tokenizer = pre
    if normalizer:
        tokenizer.normalizer = normalizer
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=700,
        initial_alphabet=splits.ByteLevel.alphabet(),
        special_tokens=["<s>", "</s>", "<|end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(TRAINING, trainer)
    return tokenizer


def over_characters(normalizer, pre):
    tokenizer = Tokenizer(
        tokenizers.models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    )
    if normalizer:
        tokenizer.normalizer = normalizer
    if pre:
        tokenizer.pre_tokenizer = pre
    names = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=700,
        limit_alphabet=100,
        special_tokens=names,
        show_progress=False,
    )
    tokenizer.train_from_iterator(TRAINING, trainer)
    # Bytes are of the vocabulary, and not matched in a text.
    saved = json.loads(tokenizer.to_str())
    saved["added_tokens"] = saved["added_tokens"][:3]
    tokenizer = Tokenizer.from_str(json.dumps(saved))
    tokenizer.add_tokens([AddedToken("<|end|>", special=False, normalized=False)])
    for name, sides in {"<|user|>": {"rstrip": True}, "<mask>": {"lstrip": True}}.items():
        tokenizer.add_special_tokens([AddedToken(name, **sides)])
    return tokenizer


def marked(*others):
    return norms.Sequence([*others, norms.Replace(" ", "▁")])


def split(pattern):
    return splits.Sequence(
        [
            splits.Split(Regex(pattern), "isolated"),
            splits.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def trained():
    bytes_alone = splits.ByteLevel(add_prefix_space=False)
    digits = splits.Sequence([splits.Digits(individual_digits=True), bytes_alone])
    yield "gpt2", byte_level(bytes_alone)
    yield "smollm", byte_level(digits)
    llama3 = byte_level(split(LLAMA3), ignore_merges=True)
    llama3.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)]
            ),
        ]
    )
    yield "llama3", llama3
    yield "qwen2", byte_level(split(QWEN2), norms.NFC())
    yield "llama2", over_characters(marked(norms.Prepend("▁")), None)
    yield "gemma", over_characters(
        norms.Replace(" ", "▁"), splits.Split(" ", "merged_with_previous")
    )
    for scheme in ("first", "always", "never"):
        for whole in (False, True):
            name = f"mistral-{scheme}{'-split' if whole else ''}"
            space = splits.Metaspace("▁", prepend_scheme=scheme, split=whole)
            yield name, over_characters(None, space)


def is_old(character):
    """Whether a character is one to every library: each knows another version
    of Unicode, and a letter is a letter from some version on."""
    return unicodedata.category(character) not in ("Cn", "Cs", "Co")


def random_texts(random, count):
    """Pieces of texts, and characters of all planes."""
    pool = "".join(TEXTS)
    for _ in range(count):
        parts = []
        for _ in range(int(random.integers(1, 6))):
            kind, n = random.integers(3), int(random.integers(1, 12))
            start = int(random.integers(len(pool)))
            if kind == 0:
                parts.append(pool[start : start + n])
            elif kind == 1:
                parts.append("".join(random.choice(list(" \t\n'a1_Z.é漢"), n)))
            else:
                limit = int(random.choice([0x80, 0x800, 0xD800, 0x20000]))
                points = map(chr, random.integers(1, limit, n))
                parts.append("".join(filter(is_old, points)))
        yield "".join(parts) or "nothing"


def config_of(vocabulary):
    return tiny_models.config_of(
        "llama",
        vocab_size=vocabulary,
        num_hidden_layers=1,
        head_dim=16,
        max_position_embeddings=2048,
    )


def write_model(path, tokenizer):
    config = config_of(tokenizer.get_vocab_size() + 7)
    tiny_models.write_folder(path, config, tiny_models.folder_tensors(config, 1))
    tokenizer.save(os.path.join(path, "tokenizer.json"))


class Pieces:
    """A vocabulary of SentencePiece, and its algorithm."""

    NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)

    def __init__(self, tokenizer, random, prefix):
        self.prefix = prefix
        words = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
        self.texts = [text for text, _ in words] + [f"[PAD{i}]" for i in range(7)]
        self.types = [self.type_of(text) for text in self.texts]
        # As good as any order. No two are equal, as in every BPE.
        self.scores = -random.permutation(len(self.texts)).astype(float)
        self.ids = {text: i for i, text in enumerate(self.texts)}

    def type_of(self, text):
        kinds = {"<unk>": self.UNKNOWN, "<s>": self.CONTROL, "</s>": self.CONTROL}
        if text.startswith("<0x") and len(text) == 6:
            return self.BYTE
        if text.startswith("[PAD"):
            return self.UNUSED
        return kinds.get(text, self.USER if text.startswith("<") else self.NORMAL)

    def add_to(self, writer):
        writer.add_tokenizer_model("llama")
        writer.add_token_list(self.texts)
        writer.add_token_scores([float(score) for score in self.scores])
        writer.add_token_types(self.types)
        writer.add_add_space_prefix(self.prefix)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)

    def score(self, text):
        token = self.ids.get(text)
        is_piece = token is not None and self.types[token] == self.NORMAL
        return self.scores[token] if is_piece else None

    def join(self, text):
        symbols = list(text)
        while True:
            scores = [self.score(a + b) for a, b in zip(symbols, symbols[1:])]
            best = max((s for s in scores if s is not None), default=None)
            if best is None:
                return symbols
            at = scores.index(best)
            symbols[at : at + 2] = ["".join(symbols[at : at + 2])]

    def encode(self, text):
        added = (self.UNKNOWN, self.CONTROL, self.USER)
        marks = [t for t, kind in zip(self.texts, self.types) if kind in added]
        marks = "|".join(map(re.escape, sorted(marks, key=len, reverse=True)))
        ids = []
        for part in filter(None, re.split(f"({marks})", text)):
            if re.fullmatch(marks, part):
                ids.append(self.ids[part])
                continue
            part = (" " * self.prefix + part).replace(" ", "▁")
            for symbol in self.join(part):
                if self.score(symbol) is not None:
                    ids.append(self.ids[symbol])
                else:
                    ids += [self.ids[f"<0x{b:02X}>"] for b in symbol.encode()]
        return ids if ids[:1] == [1] else [1, *ids]


def judge_pieces(tools, report, random, name, prefix, texts):
    tokenizer = over_characters(norms.Replace(" ", "▁"), None)
    pieces = Pieces(tokenizer, random, prefix)
    config = config_of(len(pieces.texts))
    path = tools.path(name + ".gguf")
    tensors = tiny_models.folder_tensors(config, 1)
    tiny_models.write_gguf(path, config, tensors, add_more=pieces.add_to)
    compare(tools, report, name, path, pieces.encode, texts)


def judge(tools, report, name, tokenizer, texts):
    def encode(text):
        want = tokenizer.encode(text).ids
        # kvrm-run puts no second bos in front of one.
        return want[1:] if text.startswith("<s>") and want[:2] == [BOS, BOS] else want

    path = tools.path("tokenizer-" + name)
    write_model(path, tokenizer)
    compare(tools, report, name, path, encode, texts)


def compare(tools, report, name, path, encode, texts):
    package = tools.compile([path], name, "--slots=8", "--capacity=2048")
    different = 0
    for first in range(0, len(texts), 64):
        part = texts[first : first + 64]
        told = tools.generate(package, part, 1, "--ignore-eos")
        for text, request in zip(part, told["requests"], strict=True):
            want = encode(text)
            if request["prompt_tokens"] != want:
                different += 1
                if different <= 3:
                    print(f"  {name}: {text!r}: {request['prompt_tokens']}, not {want}")
    harness.remove(package, path)
    print(f"{name:20} {len(texts):5} texts, {different} differ", flush=True)
    report.check(different == 0, f"{name}: {different} of {len(texts)} texts differ")


def main():
    parser = harness.parser(__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--tokenizer", help="a tokenizer.json to judge")
    parser.add_argument("--texts", type=int, default=200, help="random ones (200)")
    parser.add_argument("--only", default="", help="those with this in their name")
    parser.add_argument("--seed", type=int, default=None, help="default: the time")
    args = parser.parse_args()
    tools, report = harness.Tools(args), harness.Report()
    seed = time.time_ns() % 2**32 if args.seed is None else args.seed
    print(f"seed {seed}")
    random = np.random.default_rng(seed)
    texts = TEXTS + list(random_texts(random, args.texts))
    given = [("given", Tokenizer.from_file(args.tokenizer))] if args.tokenizer else None
    for name, tokenizer in given or trained():
        if args.only in name:
            judge(tools, report, name, tokenizer, texts)
    for name, prefix in (("sentencepiece", False), ("sentencepiece-prefix", True)):
        if not given and args.only in name:
            judge_pieces(tools, report, random, name, prefix, texts)
    report.finish()


if __name__ == "__main__":
    main()
