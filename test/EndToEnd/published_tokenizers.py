# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Tokenizers of published models in the terms of Hugging Face's `tokenizers`, from
the vocabulary in a GGUF file. What a file has no words for, expressions and
normalizers, is as the model's own tokenizer.json has it."""

import json
import re
import unicodedata

import gguf
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models
from tokenizers import normalizers as norms
from tokenizers import pre_tokenizers as splits

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def split(pattern):
    return splits.Sequence(
        [
            splits.Split(Regex(pattern), "isolated"),
            splits.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def digits_apart():
    return splits.Sequence(
        [splits.Digits(individual_digits=True), splits.ByteLevel(add_prefix_space=False)]
    )


# By tokenizer.ggml.pre.
PRE_TOKENIZERS = {
    "gpt-2": lambda: splits.ByteLevel(add_prefix_space=False),
    "smollm": digits_apart,
    "starcoder": digits_apart,
    "llama-bpe": lambda: split(LLAMA3),
    "qwen2": lambda: split(QWEN2),
}


def byte_alphabet():
    """GPT-2's characters for bytes: visible ones are themselves."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in visible]
    return {b: chr(b) for b in visible} | {b: chr(0x100 + i) for i, b in enumerate(others)}


ALPHABET = byte_alphabet()


def strips_behind(architecture, mark):
    """Whether white space behind a mark belongs to it, as the tokenizer.json of
    Phi-3 has it of all but three."""
    return architecture == "phi3" and mark not in ("<unk>", "<s>", "<|endoftext|>")


class Vocabulary:
    """What a GGUF file says of its tokenizer."""

    def __init__(self, path):
        self.fields = {
            name: field
            for name, field in gguf.GGUFReader(path).fields.items()
            if name.startswith("tokenizer.")
        }
        self.architecture = gguf.GGUFReader(path).fields["general.architecture"].contents()
        self.model = self.value("model")
        self.pre = self.value("pre")
        self.tokens = self.value("tokens")
        self.types = self.value("token_type")
        self.bos = self.value("bos_token_id")

    def value(self, key):
        field = self.fields.get("tokenizer.ggml." + key)
        return None if field is None else field.contents()

    def add_to(self, writer):
        """All of it, to a file that is being written."""
        for name, field in self.fields.items():
            kind = field.types[0]
            of = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), kind, of)

    def of_type(self, *kinds):
        return [(i, t) for i, t in enumerate(self.tokens) if self.types[i] in kinds]

    def marks(self):
        return [text for _, text in self.of_type(UNKNOWN, CONTROL, USER)]

    def bos_in_front(self):
        """Who adds a BOS if the file does not say."""
        adds = self.model == "llama" or self.pre == "llama-bpe"
        said = self.value("add_bos_token")
        return [self.bos] if (adds if said is None else said) else []

    def tokenizer(self):
        made = self.pieces() if self.model == "llama" else self.byte_pairs()
        for kinds, is_special in (((USER,), False), ((UNKNOWN, CONTROL), True)):
            marks = [self.mark(text, is_special) for _, text in self.of_type(*kinds)]
            (made.add_special_tokens if is_special else made.add_tokens)(marks)
        return made

    def mark(self, text, is_special):
        strips = strips_behind(self.architecture, text)
        return AddedToken(text, special=is_special, normalized=False, rstrip=strips)

    def byte_pairs(self):
        ids = {text: i for i, text in self.of_type(NORMAL, UNKNOWN, CONTROL, USER)}
        merges = [tuple(merge.split(" ")) for merge in self.value("merges")]
        made = Tokenizer(models.BPE(ids, merges, ignore_merges=self.pre == "llama-bpe"))
        made.pre_tokenizer = PRE_TOKENIZERS[self.pre]()
        if self.pre == "qwen2":
            made.normalizer = norms.NFC()
        return made

    def pieces(self):
        """As transformers converts a model of SentencePiece: a merge for each two
        pieces that make another, by the score of what they make."""
        scores = self.value("scores")
        ids = {text: i for i, text in enumerate(self.tokens)}
        pieces = {text: i for i, text in self.of_type(NORMAL)}
        merges = []
        for piece, i in pieces.items():
            cuts = [(piece[:at], piece[at:]) for at in range(1, len(piece))]
            merges += [(-scores[i], cut) for cut in cuts if set(cut) <= pieces.keys()]
        merges.sort(key=lambda merge: (merge[0], *map(len, merge[1])))
        made = Tokenizer(
            models.BPE(
                ids,
                [cut for _, cut in merges],
                byte_fallback=True,
                unk_token="<unk>",
                fuse_unk=True,
            )
        )
        prefix = [norms.Prepend("▁")] if self.value("add_space_prefix") is not False else []
        made.normalizer = norms.Sequence([*prefix, norms.Replace(" ", "▁")])
        return made


OVER_CHARACTERS = decoders.Sequence(
    [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
)


BROKEN = re.compile("([\udc80-\udcff]+)")


def has_new_marks(text):
    """Whether `tokenizers` composes a text otherwise than Unicode says: it does not
    know the order of combining marks that are newer than Unicode 9."""
    return any(
        norms.NFC().normalize_str(part) != unicodedata.normalize("NFC", part)
        for part in BROKEN.split(text)
        if not BROKEN.match(part)
    )


class Reference:
    """A tokenizer of `tokenizers` that takes text that is not UTF-8, too: there a
    byte is a token, or over bytes a word with its neighbours."""

    STAND_IN = 0xF0000  # a private character a byte

    def __init__(self, tokenizer, bos=()):
        self.tokenizer = tokenizer
        self.bos = list(bos)
        self.falls_back = json.loads(tokenizer.to_str())["model"]["byte_fallback"]
        # A token's text does not depend on where it is: no space is stripped.
        tokenizer.decoder = OVER_CHARACTERS if self.falls_back else decoders.ByteLevel()
        self.of_byte = [tokenizer.token_to_id(f"<0x{b:02X}>") for b in range(256)]

    def encode(self, text):
        ids = self.over_characters(text) if self.falls_back else self.over_bytes(text)
        return ids if ids[: len(self.bos)] == self.bos else self.bos + ids

    def plain(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def over_bytes(self, text):
        ids = []
        for part in BROKEN.split(text):
            if BROKEN.match(part):
                word = "".join(ALPHABET[ord(c) - 0xDC00] for c in part)
                ids += [token.id for token in self.tokenizer.model.tokenize(word)]
            else:
                ids += self.plain(part)
        return ids

    def over_characters(self, text):
        ids = self.plain(BROKEN.sub(self.stand_ins, text))
        start = [self.of_byte[b] for b in chr(self.STAND_IN).encode()[:2]]
        at = 0
        while BROKEN.search(text) and at < len(ids):
            if ids[at : at + 2] == start:
                high, low = (self.of_byte.index(i) & 0x3F for i in ids[at + 2 : at + 4])
                ids[at : at + 4] = [self.of_byte[high << 6 | low]]
            at += 1
        return ids

    def stand_ins(self, found):
        return "".join(chr(self.STAND_IN + ord(c) - 0xDC00) for c in found[0])

    def decode(self, ids):
        return self.tokenizer.decode(ids, skip_special_tokens=False)
