# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""A request to an engine, as who asked for it sees it."""

from __future__ import annotations

import asyncio
import codecs
import threading
from collections import deque
from dataclasses import dataclass
from typing import Callable, NamedTuple, Optional

import numpy as np

from ._library import Unique
from .tokenizer import Tokenizer

FINISHES = ("stop", "max_tokens", "capacity", "cancelled", "failed")


class Logprobs(NamedTuple):
    """Natural logarithms of the probabilities that the model gives, before temperature,
    top_k and top_p."""

    logprob: float  # of the token
    likeliest: "dict[int, float]"  # by token, the likeliest first


class Token(NamedTuple):
    id: int  # -1: what was left of an incomplete character at the end
    text: str  # that the token completes; "" without a tokenizer
    logprobs: Optional[Logprobs] = None  # if they were asked for


@dataclass(frozen=True)
class Completion:
    text: str  # "" without a tokenizer
    tokens: np.ndarray  # int32, without the one at which it stopped
    finish: str  # one of FINISHES
    prompt_tokens: int
    shared_tokens: int  # of the prompt, whose history was there already
    preemptions: int
    logprobs: "tuple[Logprobs, ...]" = ()  # one a token, if they were asked for


class Request(Unique):
    """Tokens as they come: `for token in request`, or `async for`; result(), or
    `await request.completion()`, is all of it. One reader at a time."""

    def __init__(self, tokenizer: Optional[Tokenizer], cancel: Callable[[Request], None]):
        self._tokenizer = tokenizer
        self._cancel = cancel
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._changed = threading.Condition()
        self._tokens: "deque[tuple[int, Optional[Logprobs]]]" = deque()
        self._logprobs: "list[Logprobs]" = []  # of all tokens so far
        self._end: "Completion | Exception | None" = None
        self._wake: Optional[Callable[[], object]] = None

    def cancel(self) -> None:
        """Ends it. What came before stays, and its finish is "cancelled"."""
        self._cancel(self)

    def result(self) -> Completion:
        """Waits for the end. Errors: KvrmError of a request that the engine does not
        take, or of a step."""
        with self._changed:
            self._changed.wait_for(lambda: self._end is not None)
        return self._ended()

    async def completion(self) -> Completion:
        """The same for coroutines."""
        await self._until(lambda: self._end is not None)
        return self._ended()

    def __iter__(self):
        return self

    def __next__(self) -> Token:
        with self._changed:
            self._changed.wait_for(self._has_next)
        token = self._next()
        if token is None:
            raise StopIteration
        return token

    def __aiter__(self):
        return self

    async def __anext__(self) -> Token:
        await self._until(self._has_next)
        token = self._next()
        if token is None:
            raise StopAsyncIteration
        return token

    # Of readers.

    def _has_next(self) -> bool:
        return bool(self._tokens) or self._end is not None

    def _ended(self) -> Completion:
        if isinstance(self._end, Exception):
            raise self._end
        assert self._end is not None
        return self._end

    def _next(self) -> Optional[Token]:
        if self._tokens:
            token, logprobs = self._tokens.popleft()
            return Token(token, self._text(token), logprobs)
        self._ended()
        rest = self._decoder.decode(b"", True)
        return Token(-1, rest) if rest else None

    def _text(self, token: int) -> str:
        if not self._tokenizer or self._tokenizer.is_special(token):
            return ""
        return self._decoder.decode(self._tokenizer.token(token))

    async def _until(self, is_there: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            event = asyncio.Event()
            with self._changed:
                if is_there():
                    return
                self._wake = lambda: loop.call_soon_threadsafe(event.set)
            try:
                await event.wait()
            except asyncio.CancelledError:
                self.cancel()
                raise

    # Of the engine's thread.

    def _put(self, token: int, logprobs: Optional[Logprobs]) -> None:
        with self._changed:
            self._tokens.append((token, logprobs))
            if logprobs:
                self._logprobs.append(logprobs)
            self._tell()

    def _finish(self, end: "Completion | Exception") -> None:
        with self._changed:
            self._end = end
            self._tell()

    def _tell(self) -> None:
        self._changed.notify_all()
        wake, self._wake = self._wake, None
        try:
            if wake:
                wake()
        except RuntimeError:
            pass  # the reader's loop is closed
