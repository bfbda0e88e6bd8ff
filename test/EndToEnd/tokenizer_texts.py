# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Texts that tokenizers are compared on. What is not UTF-8 is in them as Python's
`surrogateescape` has it."""

import random
import unicodedata

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
POOL = "".join(TEXTS)

# Unicode's White_Space.
SPACES = "\t\n\x0b\x0c\r \x85\u00a0\u1680" + "".join(map(chr, range(0x2000, 0x200B)))
SPACES += "\u2028\u2029\u202f\u205f\u3000"
CODE = [
    "if", "return", "self.", "x", "i32", "_name", "camelCase", "==", "->", "::", "{\n",
    "}\n", ");\n", "    ", "\t", "[0]", "'a'", '"', "//", "/*", "#include <", "0x1F",
    "1e-5", "&&", "!=", "\\n", "$", "`", "@", "...", "<T>", "</div>",
]  # fmt: skip
ENDINGS = ["'s", "'S", "'t", "'re", "'VE", "'m", "'Ll", "'d", "'ſ", "’s", "'x", "''s"]
WIDE = [(0x3040, 0x3100), (0x4E00, 0x9FFF), (0xAC00, 0xD7A4), (0x3000, 0x3040), (0xFF00, 0xFFEF)]
SCRIPTS = [
    (0x41, 0x7B), (0xC0, 0x250), (0x370, 0x400), (0x400, 0x530), (0x590, 0x600),
    (0x600, 0x700), (0x900, 0x980), (0xE00, 0xE80), (0x1E00, 0x2000),
]  # fmt: skip
EMOJI = [(0x1F300, 0x1F650), (0x1F900, 0x1FA00), (0x2600, 0x27C0), (0x1F1E6, 0x1F200)]
JOINERS = "\u200d\ufe0f\U0001f3fb\U0001f3ff\u20e3"
DIGITS = "0123456789" * 3 + "٣४๔½Ⅷ①²𝟘"


def is_known(character):
    """Whether a character is one to every library: each knows another version
    of Unicode, and a letter is a letter from some version on."""
    return unicodedata.category(character) not in ("Cn", "Cs", "Co")


class TextMaker:
    """Texts from a seed. `marks` are what a tokenizer may take as one token."""

    def __init__(self, seed, marks=()):
        self.random = random.Random(seed)
        self.marks = list(marks) or ["<s>"]
        self.kinds = [
            self.quoted, self.code, self.wide, self.words, self.emoji, self.control,
            self.spaces, self.digits, self.composed, self.contracted, self.anything,
            self.marked,
        ]  # fmt: skip

    def texts(self, count):
        for _ in range(count):
            parts = self.random.choices(self.kinds, k=self.random.randint(1, 6))
            text = "".join(part() for part in parts)
            yield self.broken(text) if self.random.random() < 0.1 else text

    def some(self, choose, most=10):
        return "".join(choose() for _ in range(self.random.randint(1, most)))

    def of_ranges(self, ranges):
        while True:
            low, high = self.random.choice(ranges)
            character = chr(self.random.randrange(low, high))
            if is_known(character):
                return character

    def quoted(self):
        start = self.random.randrange(len(POOL))
        return POOL[start : start + self.random.randint(1, 20)]

    def code(self):
        return self.some(lambda: self.random.choice(CODE))

    def wide(self):
        return self.some(lambda: self.of_ranges(WIDE))

    def word(self):
        script = [self.random.choice(SCRIPTS)]
        return self.some(lambda: self.of_ranges(script))

    def words(self):
        return self.some(lambda: self.random.choice(["", " ", "  "]) + self.word(), 5)

    def emoji(self):
        def one():
            return self.of_ranges(EMOJI) + self.random.choice(["", *JOINERS])

        return self.some(one, 5)

    def control(self):
        return self.some(lambda: chr(self.random.choice([*range(32), *range(127, 160)])))

    def spaces(self):
        return self.some(lambda: self.random.choice("    \n\t\r" + SPACES), 20)

    def digits(self):
        return self.some(lambda: self.random.choice(DIGITS))

    def composed(self):
        def one():
            base = self.of_ranges(SCRIPTS[:4]) if self.random.random() < 0.8 else ">"
            return base + self.some(lambda: self.of_ranges([(0x300, 0x370)]), 3)

        return self.some(one, 4)

    def contracted(self):
        return self.word() + self.random.choice(ENDINGS) + self.random.choice(["", " ", "t"])

    def anything(self):
        limit = self.random.choice([0x80, 0x800, 0xD800, 0x20000])
        return self.some(lambda: self.of_ranges([(0, limit)]))

    def marked(self):
        space = self.random.choice(["", "", " ", "\n"])
        return space + self.random.choice(self.marks) + self.random.choice(["", " ", "\n", "s"])

    def broken(self, text):
        """Cut within its characters, and with bytes of others in it."""
        data = bytearray(text.encode())
        for _ in range(self.random.randint(1, 4)):
            at = self.random.randrange(len(data) + 1)
            if self.random.random() < 0.5:
                del data[at : at + self.random.randint(1, 2)]
            else:
                data[at:at] = self.random.randbytes(self.random.randint(1, 3))
        return data.decode("utf-8", "surrogateescape")
