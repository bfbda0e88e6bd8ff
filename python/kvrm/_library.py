# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""libkvrm.so: the C API (kvrm.h, kvrm-text.h) as ctypes has it."""

from __future__ import annotations

import ctypes
import operator
import os
from ctypes import POINTER, c_char_p, c_double, c_float, c_int32, c_int64
from ctypes import c_size_t, c_uint64, c_void_p

RESOURCE_EXHAUSTED = 3


class KvrmError(Exception):
    """A call of the runtime that failed. `status` is its kvrm_status."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


_INT32 = (-(2**31), 2**31 - 1)
_LIMITS = {
    c_int32: _INT32,
    c_int64: (-(2**63), 2**63 - 1),
    c_uint64: (0, 2**64 - 1),  # c_size_t too
}


def integer(name: str, value, low: int = _INT32[0], high: int = _INT32[1]) -> int:
    """The integer argument `name`, checked, as ctypes cuts off the bits that do not
    fit."""
    try:
        number = operator.index(value)
    except TypeError:
        kind = type(value).__name__
        raise TypeError(f"{name} is an integer, not {kind}") from None
    if not low <= number <= high:
        raise ValueError(f"{name}: {number} is outside {low}..{high}")
    return number


class _Struct(ctypes.Structure):
    def __init__(self, **values):
        for name, kind in self._fields_:
            if name in values and kind in _LIMITS:
                values[name] = integer(name, values[name], *_LIMITS[kind])
        super().__init__(**values)


def _struct(type_name: str, /, **fields):
    return type(type_name, (_Struct,), {"_fields_": list(fields.items())})


PackageInfo = _struct(
    "PackageInfo",
    name=c_char_p,
    architecture=c_char_p,
    is_paged=c_int32,
    vocabulary=c_int32,
    layers=c_int32,
    heads=c_int32,
    kv_heads=c_int32,
    head_dim=c_int32,
    slots=c_int32,
    capacity=c_int32,
    page_tokens=c_int32,
    bos=c_int32,
    eos=c_int32,
    ends=POINTER(c_int32),
    end_count=c_size_t,
)
SessionConfig = _struct(
    "SessionConfig",
    pool_pages=c_int64,
    threads=c_int32,
    shares=c_int32,
    kept_histories=c_int32,
    parking_places=c_int32,
    parking_pages=c_int64,
    device=c_int32,
)
Result = _struct(
    "Result",
    request=c_int64,
    finish=c_int32,
    tokens=POINTER(c_int32),
    token_count=c_size_t,
    prompt_tokens=c_int32,
    shared_tokens=c_int32,
    preemptions=c_int32,
    arrival=c_int64,
    start=c_int64,
    first_token=c_int64,
    end=c_int64,
)
OnToken = ctypes.CFUNCTYPE(None, c_void_p, c_int64, c_int32)
OnFinish = ctypes.CFUNCTYPE(None, c_void_p, POINTER(Result))
Now = ctypes.CFUNCTYPE(c_int64, c_void_p)
Logprob = _struct("Logprob", token=c_int32, logprob=c_double)
OnLogprobs = ctypes.CFUNCTYPE(None, c_void_p, c_int64, POINTER(Logprob), c_size_t)
EngineConfig = _struct(
    "EngineConfig",
    queue_limit=c_int32,
    stall_factor=c_double,
    preemption=c_int32,
    shares_prefixes=c_int32,
    context=c_void_p,
    on_token=OnToken,
    on_finish=OnFinish,
    now=Now,
    on_logprobs=OnLogprobs,
)
RequestSpec = _struct(
    "RequestSpec",
    prompt=POINTER(c_int32),
    prompt_count=c_size_t,
    max_tokens=c_int32,
    stop_tokens=POINTER(c_int32),
    stop_count=c_size_t,
    temperature=c_float,
    top_p=c_float,
    top_k=c_int32,
    seed=c_uint64,
    logprobs=c_int32,
    top_logprobs=c_int32,
)
ChatMessage = _struct(
    "ChatMessage",
    role=c_char_p,
    role_bytes=c_size_t,
    content=c_char_p,
    content_bytes=c_size_t,
)

_IDS = POINTER(c_int32)
_FLOATS = POINTER(c_float)
# Of functions that answer with a status.
_CALLS = {
    "kvrm_package_open": [c_char_p, POINTER(c_void_p)],
    "kvrm_package_get_info": [c_void_p, POINTER(PackageInfo)],
    "kvrm_session_create": [c_void_p, POINTER(SessionConfig), POINTER(c_void_p)],
    "kvrm_prefill": [c_void_p, c_int32, _IDS, c_size_t, _FLOATS],
    "kvrm_decode": [c_void_p, _IDS, _FLOATS],
    "kvrm_release": [c_void_p, c_int32],
    "kvrm_alias": [c_void_p, c_int32, c_int32, c_int32],
    "kvrm_trim": [c_void_p, c_int32, c_int32],
    "kvrm_length": [c_void_p, c_int32, _IDS],
    "kvrm_engine_create": [c_void_p, POINTER(EngineConfig), POINTER(c_void_p)],
    "kvrm_engine_submit": [c_void_p, POINTER(RequestSpec), POINTER(c_int64)],
    "kvrm_engine_cancel": [c_void_p, c_int64],
    "kvrm_engine_step": [c_void_p],
    "kvrm_tokenizer_open": [c_char_p, POINTER(c_void_p)],
    "kvrm_tokenizer_token": [c_void_p, c_int32, POINTER(c_void_p), POINTER(c_size_t), _IDS],
    "kvrm_tokenizer_encode": [c_void_p, c_char_p, c_size_t, _IDS, c_size_t, POINTER(c_size_t)],
    "kvrm_tokenizer_encode_chat": [
        c_void_p, POINTER(ChatMessage), c_size_t, _IDS, c_size_t, POINTER(c_size_t),
    ],
}  # fmt: skip
_DESTROYERS = [
    "kvrm_package_close",
    "kvrm_session_destroy",
    "kvrm_engine_destroy",
    "kvrm_tokenizer_close",
]


def _load() -> ctypes.CDLL:
    beside = os.path.join(os.path.dirname(__file__), "libkvrm.so")
    library = ctypes.CDLL(os.environ.get("KVRM_LIBRARY", beside))
    for name, arguments in _CALLS.items():
        function = getattr(library, name)
        function.argtypes = arguments
        function.restype = c_int32
        function.errcheck = _check
    for name in _DESTROYERS:
        getattr(library, name).argtypes = [c_void_p]
        getattr(library, name).restype = None
    library.kvrm_last_error.restype = c_char_p
    library.kvrm_version.restype = c_char_p
    library.kvrm_engine_is_idle.argtypes = [c_void_p]
    library.kvrm_tokenizer_size.argtypes = [c_void_p]
    return library


def _check(status, function, arguments):
    if status != 0:
        message = library.kvrm_last_error().decode("utf-8", "replace")
        raise KvrmError(status, message)
    return status


library = _load()


def version() -> str:
    """Of the runtime."""
    return library.kvrm_version().decode()


class Unique:
    """What there is one of: a copy would own the same handle, thread or tokens."""

    def __reduce__(self):  # of copy, deepcopy and pickle
        raise TypeError(f"{type(self).__name__} objects cannot be copied or pickled")


class Handle(Unique):
    """A handle of the C API, which is destroyed with this object or by close().
    What it was made of lives as long."""

    def __init__(self, destroy, *needs):
        self._destroy = destroy
        self._needs = needs
        self._pointer = c_void_p()

    @property
    def pointer(self) -> c_void_p:
        if not self._pointer:
            raise ValueError(f"the {type(self).__name__} is closed")
        return self._pointer

    def close(self) -> None:
        pointer, self._pointer = self._pointer, c_void_p()
        if pointer:
            self._destroy(pointer)

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __del__(self):
        if getattr(self, "_pointer", None):
            self.close()
