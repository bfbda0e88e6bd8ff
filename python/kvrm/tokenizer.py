# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Text to token ids and back."""

from __future__ import annotations

import codecs
import ctypes
import json
import os
from typing import Iterable, Mapping, Sequence

import numpy as np

from . import _library
from ._library import integer, library
from .session import Ids, PathLike, as_ids, ids_pointer

Message = Mapping[str, str]
"""{"role": ..., "content": ...}"""


class Tokenizer(_library.Handle):
    """A package's tokenizer. Threads may share one."""

    def __init__(self, package: PathLike):
        """`package` is its folder. KvrmError if that has none."""
        super().__init__(library.kvrm_tokenizer_close)
        path = os.path.join(os.fspath(package), "tokenizer.json")
        library.kvrm_tokenizer_open(os.fsencode(path), ctypes.byref(self._pointer))
        # The decoder may have more ids, without a text, which it may answer with.
        self._vocabulary = max(len(self), _vocabulary_of(os.fspath(package)))

    def __len__(self) -> int:
        return library.kvrm_tokenizer_size(self.pointer)

    def encode(self, prompt: str) -> np.ndarray:
        """The ids of a prompt, with BOS in front if the model expects it."""
        data = _str("a prompt", prompt).encode("utf-8", "surrogateescape")
        return _ids(library.kvrm_tokenizer_encode, self.pointer, data, len(data))

    def encode_chat(self, messages: Sequence[Message]) -> np.ndarray:
        """The ids of a conversation as the model's chat template writes it, up to
        where the answer starts. KvrmError if it refuses."""
        array = (_library.ChatMessage * len(messages))()
        for i, (place, message) in enumerate(zip(array, messages)):
            _check_message(f"messages[{i}]", message)
            place.role = role = message["role"].encode()
            place.content = content = message["content"].encode()
            place.role_bytes, place.content_bytes = len(role), len(content)
        return _ids(
            library.kvrm_tokenizer_encode_chat, self.pointer, array, len(messages)
        )

    def token(self, token: int) -> bytes:
        """What a token stands for, which alone may be no UTF-8."""
        return self._token(token)[0]

    def is_special(self, token: int) -> bool:
        return self._token(token)[1]

    def decode(self, tokens: Ids, skip_special: bool = True) -> str:
        """The text of ids, with U+FFFD for what is no UTF-8."""
        return "".join(self.stream(as_ids(tokens).tolist(), skip_special))

    def stream(self, tokens: Iterable[int], skip_special: bool = True):
        """The text of ids one by one: what each completes, and one piece more for
        what is left at the end."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for token in tokens:
            text, is_special = self._token(token)
            skips = skip_special and is_special
            yield "" if skips else decoder.decode(text)
        yield decoder.decode(b"", True)

    def _token(self, token: int) -> "tuple[bytes, bool]":
        text = ctypes.c_void_p()
        size = ctypes.c_size_t()
        special = ctypes.c_int32()
        library.kvrm_tokenizer_token(
            self.pointer,
            integer("token", token, 0, self._vocabulary - 1),
            ctypes.byref(text),
            ctypes.byref(size),
            ctypes.byref(special),
        )
        return ctypes.string_at(text, size.value), bool(special.value)


def _vocabulary_of(package: str) -> int:
    """Of a package's decoder, from its manifest alone, as Package reads all weights.
    0: the folder has no decoder."""
    try:
        with open(os.path.join(package, "manifest.json"), "rb") as manifest:
            return int(json.load(manifest)["model"]["vocabulary"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _str(name: str, value) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} is a str, not {type(value).__name__}")
    return value


def _check_message(name: str, message: Message) -> None:
    if not isinstance(message, Mapping):
        raise TypeError(f"{name} is a mapping, not {type(message).__name__}")
    for key in message:
        if key not in ("role", "content"):
            raise ValueError(f"{name} has {key!r}")
    for key in ("role", "content"):
        if key not in message:
            raise ValueError(f"{name} has no {key!r}")
        _str(f"{name}[{key!r}]", message[key])


def _ids(function, *arguments) -> np.ndarray:
    """What a call makes that says how much room it wants."""
    count = ctypes.c_size_t()
    ids = np.empty(256, dtype=np.int32)
    for _ in range(2):
        function(*arguments, ids_pointer(ids), ids.size, ctypes.byref(count))
        if count.value <= ids.size:
            break
        ids = np.empty(count.value, dtype=np.int32)
    return ids[: count.value]
