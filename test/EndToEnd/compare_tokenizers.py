#!/usr/bin/env python3
# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Judges tokenizers of packages by Hugging Face's library `tokenizers`.

Small ones are trained on the texts of tokenizer_texts.py, built as GPT-2, SmolLM,
Llama 3, Qwen2, Llama 2 and Mistral build theirs, and go to packages in the folder of
a tiny model. Then those texts, and random ones, go through both. GGUF files with
SentencePiece's BPE are judged by its algorithm, as it is described: of all
neighbours that make a piece those of the highest score are joined, the first of
equal ones, and again.

What somebody else published is judged the same way: with --vocabulary the tokenizer
of a GGUF file, which may have no tensors, with --tokenizer a tokenizer.json.

    compare_tokenizers.py --work /tmp/tokenizers [--vocabulary ggml-vocab-qwen2.gguf ...]
"""

import importlib
import itertools
import json
import os
import re
import sys

import harness
import numpy as np
import tiny_models
import tokenizers
from published_tokenizers import (
    LLAMA3,
    QWEN2,
    Reference,
    Vocabulary,
    digits_apart,
    has_new_marks,
    split,
    strips_behind,
)
from tokenizer_texts import SPACES, TEXTS, TextMaker
from tokenizers import AddedToken, Tokenizer
from tokenizers import normalizers as norms
from tokenizers import pre_tokenizers as splits
from tokenizers import processors

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


def trained():
    bytes_alone = splits.ByteLevel(add_prefix_space=False)
    yield "gpt2", byte_level(bytes_alone)
    yield "smollm", byte_level(digits_apart())
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


def config_of(vocabulary, architecture="llama"):
    return tiny_models.config_of(
        "phi3" if architecture == "phi3" else "llama",
        vocab_size=vocabulary,
        hidden_size=32,
        num_hidden_layers=1,
        head_dim=16,
        tie_word_embeddings=True,
    )


def write_model(path, tokenizer):
    config = config_of(tokenizer.get_vocab_size() + 7)
    tiny_models.write_folder(path, config, tiny_models.folder_tensors(config, 1))
    tokenizer.save(os.path.join(path, "tokenizer.json"))


class Pieces:
    """A vocabulary of SentencePiece, and its algorithm."""

    NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)
    falls_back = False

    def __init__(self, tokenizer, random, prefix, architecture="llama"):
        self.prefix = prefix
        self.architecture = architecture
        words = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
        self.tokens = [text for text, _ in words] + [f"[PAD{i}]" for i in range(7)]
        self.types = [self.type_of(text) for text in self.tokens]
        # As good as any order. No two are equal, as in every BPE.
        self.scores = -random.permutation(len(self.tokens)).astype(float)
        self.ids = {text: i for i, text in enumerate(self.tokens)}

    def type_of(self, text):
        kinds = {"<unk>": self.UNKNOWN, "<s>": self.CONTROL, "</s>": self.CONTROL}
        if text.startswith("<0x") and len(text) == 6:
            return self.BYTE
        if text.startswith("[PAD"):
            return self.UNUSED
        return kinds.get(text, self.USER if text.startswith("<") else self.NORMAL)

    def add_to(self, writer):
        writer.add_tokenizer_model("llama")
        writer.add_token_list(self.tokens)
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

    def marks(self):
        added = (self.UNKNOWN, self.CONTROL, self.USER)
        return [t for t, kind in zip(self.tokens, self.types) if kind in added]

    def encode(self, text):
        marks = "|".join(map(re.escape, sorted(self.marks(), key=len, reverse=True)))
        ids, strips = [], False
        for part in filter(None, re.split(f"({marks})", text)):
            if re.fullmatch(marks, part):
                ids.append(self.ids[part])
                strips = strips_behind(self.architecture, part)
                continue
            part = part.lstrip(SPACES) if strips else part
            strips = False
            if not part:
                continue
            part = (" " * self.prefix + part).replace(" ", "▁")
            for symbol in self.join(part):
                if self.score(symbol) is not None:
                    ids.append(self.ids[symbol])
                else:
                    data = symbol.encode("utf-8", "surrogateescape")
                    ids += [self.ids[f"<0x{b:02X}>"] for b in data]
        return ids if ids[:1] == [1] else [1, *ids]

    def bytes_of(self, token):
        text = self.tokens[token]
        if self.types[token] == self.BYTE:
            return bytes([int(text[3:5], 16)])
        return (text.replace("▁", " ") if self.score(text) is not None else text).encode()

    def decode(self, ids):
        return b"".join(map(self.bytes_of, ids)).decode("utf-8", "replace")


def open_tokenizer(library, package):
    """By the Python package, which is beside the tests, in this process."""
    os.environ["KVRM_LIBRARY"] = library
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
    sys.path.insert(0, os.path.join(root, "python"))
    return importlib.import_module("kvrm").Tokenizer(package)


class Judge:
    """Compiles models with tokenizers, and compares those of the packages."""

    def __init__(self, args, seed):
        self.tools, self.report = harness.Tools(args), harness.Report()
        self.library = args.library
        self.count, self.seed = args.texts, seed

    def folder(self, name, tokenizer):
        path = self.tools.path("tokenizer-" + name)
        write_model(path, tokenizer)
        bos = tokenizer.encode("").ids
        marks = [t.content for t in tokenizer.get_added_tokens_decoder().values()]
        self.compare(name, path, Reference(tokenizer, bos), marks)

    def file(self, name, words, reference):
        """A GGUF file of a tiny model with a vocabulary."""
        path = self.tools.path(name + ".gguf")
        config = config_of(len(words.tokens), words.architecture)
        tensors = tiny_models.folder_tensors(config, 1)
        tiny_models.write_gguf(path, config, tensors, add_more=words.add_to)
        self.compare(name, path, reference, words.marks())

    def published(self, path):
        words = Vocabulary(path)
        name = os.path.splitext(os.path.basename(path))[0]
        self.file(name, words, Reference(words.tokenizer(), words.bos_in_front()))

    def pieces(self, name, random, *settings):
        tokenizer = over_characters(norms.Replace(" ", "▁"), None)
        words = Pieces(tokenizer, random, *settings)
        self.file(name, words, words)

    def compare(self, name, path, reference, marks):
        package = self.tools.compile([path], name, "--slots=1", "--capacity=64")
        different = explained = 0
        random = TextMaker(self.seed, marks).texts(self.count)
        with open_tokenizer(self.library, package) as tokenizer:
            for text in itertools.chain(TEXTS, random):
                problem = difference(tokenizer, reference, text)
                if problem and has_new_marks(text):
                    explained += 1
                    continue
                different += bool(problem)
                if problem and different <= 5:
                    print(f"  {name}: {text!r}: {problem}")
        harness.remove(package, path)
        count = len(TEXTS) + self.count
        others = f", {explained} by marks of a newer Unicode" if explained else ""
        print(f"{name:24} {count:6} texts, {different} differ{others}", flush=True)
        self.report.check(different == 0, f"{name}: {different} of {count} texts differ")


def difference(tokenizer, reference, text):
    """What is wrong with the ids of a text, or the text of its ids."""
    got, want = tokenizer.encode(text).tolist(), reference.encode(text)
    if got != want:
        at = next((i for i, pair in enumerate(zip(got, want)) if pair[0] != pair[1]), 0)
        return f"from token {at} on {got[at : at + 8]}, not {want[at : at + 8]}"
    back, want = tokenizer.decode(got, skip_special=False), reference.decode(got)
    # Over bytes `tokenizers` has one U+FFFD a byte, and of whole characters, too.
    is_broken = any("\udc80" <= c <= "\udcff" for c in text)
    if back != want and not (is_broken and reference.falls_back):
        return f"its ids are of {back!r}, not of {want!r}"
    return None


def main():
    parser = harness.parser(__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument(
        "--library",
        default=os.environ.get("KVRM_LIBRARY", "build/lib/libkvrm.so"),
        help="libkvrm.so; default: KVRM_LIBRARY, or that of build",
    )
    parser.add_argument("--vocabulary", nargs="+", default=[], help="GGUF files to judge")
    parser.add_argument("--tokenizer", help="a tokenizer.json to judge")
    parser.add_argument("--texts", type=int, default=1000, help="random ones (1000)")
    parser.add_argument("--only", default="", help="those with this in their name")
    parser.add_argument("--seed", type=int, default=None, help="default: the time")
    args = parser.parse_args()
    judge = Judge(args, harness.seed_of(args))
    for path in args.vocabulary:
        judge.published(path)
    if args.tokenizer:
        judge.folder("given", Tokenizer.from_file(args.tokenizer))
    elif not args.vocabulary:
        judge_trained(judge, args.only, np.random.default_rng(judge.seed))
    judge.report.finish()


def judge_trained(judge, only, random):
    for name, tokenizer in trained():
        if only in name:
            judge.folder(name, tokenizer)
    for name, *settings in (
        ("sentencepiece", False),
        ("sentencepiece-prefix", True),
        ("sentencepiece-phi3", True, "phi3"),
    ):
        if only in name:
            judge.pieces(name, random, *settings)


if __name__ == "__main__":
    main()
