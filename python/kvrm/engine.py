# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""The engine: many requests over the slots of one decoder."""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
from typing import Callable, Mapping, Optional, Sequence, Union, cast

import numpy as np

from . import _library
from ._library import KvrmError, integer, library
from .request import FINISHES, Completion, Logprobs, Request, Token
from .session import Ids, Package, PathLike, Session, as_ids, ids_pointer, session_of
from .tokenizer import Message, Tokenizer

Prompt = Union[str, Ids, Sequence[Message]]
"""A text to go on with, token ids, or a conversation to answer."""

__all__ = [
    "Completion",
    "Engine",
    "Logprobs",
    "QueueFullError",
    "Request",
    "Token",
    "generate",
]


class QueueFullError(KvrmError):
    """More requests wait than the engine's queue has room for."""


class Engine(_library.Unique):
    """Serves requests in a thread of its own, which has the session to itself. Any
    thread submits."""

    def __init__(
        self,
        package: Union[Session, Package, PathLike],
        *,
        queue_limit: int = 0,
        shares_prefixes: bool = False,
        **session_options: int,
    ):
        """`queue_limit`: requests that may wait, 0 is 256. Other options are those of
        Session."""
        self.session = session_of(package, session_options)
        self.info = self.session.info
        folder = self.session.package.path
        has_tokenizer = os.path.exists(os.path.join(folder, "tokenizer.json"))
        self.tokenizer: Optional[Tokenizer] = Tokenizer(folder) if has_tokenizer else None
        self._requests: "dict[int, Request]" = {}  # the thread's
        self._logprobs: Optional[Logprobs] = None  # of the token that comes next
        self._changed = threading.Condition()
        self._inbox: "list[Callable[[], None]]" = []
        self._is_closing = False
        self._config = _library.EngineConfig(
            queue_limit=queue_limit,
            shares_prefixes=shares_prefixes,
            on_token=_library.OnToken(self._on_token),
            on_finish=_library.OnFinish(self._on_finish),
            on_logprobs=_library.OnLogprobs(self._on_logprobs),
        )
        self._engine = ctypes.c_void_p()
        library.kvrm_engine_create(
            self.session.pointer, ctypes.byref(self._config), ctypes.byref(self._engine)
        )
        self._thread = threading.Thread(target=self._run, name="kvrm", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def submit(
        self,
        prompt: Prompt,
        *,
        max_tokens: int = 128,
        temperature: float = 0,
        top_p: float = 1,
        top_k: int = 0,
        seed: int = 0,
        stop_tokens: Optional[Ids] = None,
        logprobs: Optional[int] = None,
    ) -> Request:
        """Asks for up to `max_tokens` tokens, greedily unless there is a temperature.
        `stop_tokens`: those that end a turn of the model, if nothing else is said.
        `logprobs`: tokens come with their log probability, and those of so many of the
        likeliest, 0 to 20. What the engine does not take is an error of the request:
        QueueFullError for one."""
        ids = self._ids(prompt)
        if stop_tokens is None:
            stops = as_ids(self.info.ends)
        else:
            stops = as_ids(stop_tokens, "stop_tokens", 0, self.info.vocabulary - 1)
        spec = _library.RequestSpec(
            prompt=ids_pointer(ids),
            prompt_count=ids.size,
            max_tokens=max_tokens,
            stop_tokens=ids_pointer(stops),
            stop_count=stops.size,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            seed=seed,
            logprobs=logprobs is not None,
            top_logprobs=0 if logprobs is None else integer("logprobs", logprobs),
        )
        request = Request(self.tokenizer, self._ask_to_cancel)

        def start(arrays=(ids, stops)):  # which the spec points to
            number = ctypes.c_int64()
            try:
                library.kvrm_engine_submit(
                    self._engine, ctypes.byref(spec), ctypes.byref(number)
                )
                self._requests[number.value] = request
            except KvrmError as error:
                is_full = error.status == _library.RESOURCE_EXHAUSTED
                kind = QueueFullError if is_full else KvrmError
                request._finish(kind(error.status, str(error)))

        self._do(start)
        return request

    def close(self) -> None:
        """Ends the thread; requests that run fail. The session is free after."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join()
        atexit.unregister(self.close)

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _ids(self, prompt: Prompt) -> np.ndarray:
        if isinstance(prompt, str):
            return self._tokenizer().encode(prompt)
        if len(prompt) > 0 and isinstance(prompt[0], Mapping):
            return self._tokenizer().encode_chat(cast(Sequence[Message], prompt))
        return as_ids(cast(Ids, prompt))

    def _tokenizer(self) -> Tokenizer:
        if not self.tokenizer:
            raise ValueError("the package has no tokenizer: a prompt is token ids")
        return self.tokenizer

    def _do(self, work: Callable[[], None]) -> None:
        with self._changed:
            if self._is_closing:
                raise ValueError("the Engine is closed")
            self._inbox.append(work)
            self._changed.notify_all()

    def _ask_to_cancel(self, request: Request) -> None:
        def cancel():
            for number, other in self._requests.items():
                if other is request:
                    library.kvrm_engine_cancel(self._engine, number)
                    break

        try:
            self._do(cancel)
        except ValueError:
            pass  # it has ended with the engine

    # Of the thread.

    def _on_logprobs(self, _, number: int, told, count: int) -> None:
        own, *likeliest = [(each.token, each.logprob) for each in told[:count]]
        self._logprobs = Logprobs(own[1], dict(likeliest))

    def _on_token(self, _, number: int, token: int) -> None:
        logprobs, self._logprobs = self._logprobs, None
        self._requests[number]._put(token, logprobs)

    def _on_finish(self, _, told) -> None:
        result = told.contents
        count = result.token_count
        tokens = np.array(result.tokens[:count], dtype=np.int32)
        request = self._requests.pop(result.request)
        request._finish(
            Completion(
                text=self.tokenizer.decode(tokens) if self.tokenizer else "",
                tokens=tokens,
                finish=FINISHES[result.finish],
                prompt_tokens=result.prompt_tokens,
                shared_tokens=result.shared_tokens,
                preemptions=result.preemptions,
                logprobs=tuple(request._logprobs),
            )
        )

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._inbox or self._requests or self._is_closing
                )
                inbox, self._inbox = self._inbox, []
                is_closing = self._is_closing
            for work in inbox:
                work()
            if is_closing:
                break
            try:
                if self._requests:
                    library.kvrm_engine_step(self._engine)
            except KvrmError as error:
                self._fail_all(error)
        library.kvrm_engine_destroy(self._engine)
        for request in self._requests.values():
            request._finish(ValueError("the Engine was closed"))

    def _fail_all(self, error: KvrmError) -> None:
        requests, self._requests = self._requests, {}
        for number, request in requests.items():
            self._requests = {number: Request(None, self._ask_to_cancel)}
            library.kvrm_engine_cancel(self._engine, number)
            request._finish(error)
        self._requests = {}


def generate(
    package: Union[Package, PathLike],
    prompt: Prompt,
    *,
    threads: int = 0,
    device: int = 0,
    **options: "int | float | Ids",
) -> Completion:
    """One request, with the options of Engine.submit()."""
    with Engine(package, threads=threads, device=device) as engine:
        return engine.submit(prompt, **options).result()
