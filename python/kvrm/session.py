# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Packages, and the decoder in them."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from typing import Sequence, Union

import numpy as np

from . import _library
from ._library import integer, library

Ids = Union[Sequence[int], np.ndarray]
PathLike = Union[str, "os.PathLike[str]"]


def as_ids(tokens: Ids, name: str = "token id", *limits: int) -> np.ndarray:
    """Token ids as the runtime takes them. ValueError for what is none, or is outside
    the limits, which are 32 bits if nothing is said."""
    ids = np.asarray(tokens)
    if ids.ndim != 1 or (ids.size and not np.issubdtype(ids.dtype, np.integer)):
        raise ValueError("token ids are a list of 32-bit integers")
    if ids.size:
        integer(name, ids.min(), *limits)
        integer(name, ids.max(), *limits)
    return np.ascontiguousarray(ids, dtype=np.int32)


def ids_pointer(ids: np.ndarray):
    return ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))


@dataclass(frozen=True)
class PackageInfo:
    name: str
    architecture: str
    is_paged: bool
    vocabulary: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    slots: int  # requests that run at once
    capacity: int  # tokens a slot
    page_tokens: int
    bos: int  # -1: none
    eos: int  # -1: none
    ends: "tuple[int, ...]"  # tokens that end a turn


class Package(_library.Handle):
    """A folder that kvrmc has written."""

    def __init__(self, path: PathLike):
        super().__init__(library.kvrm_package_close)
        self.path = os.fspath(path)
        library.kvrm_package_open(os.fsencode(self.path), ctypes.byref(self._pointer))
        raw = _library.PackageInfo()
        library.kvrm_package_get_info(self.pointer, ctypes.byref(raw))
        values = {name: getattr(raw, name) for name, _ in raw._fields_}
        count = values.pop("end_count")
        values["ends"] = tuple(raw.ends[i] for i in range(count))
        values["is_paged"] = bool(raw.is_paged)
        for name in ("name", "architecture"):
            values[name] = values[name].decode("utf-8", "replace")
        self.info = PackageInfo(**values)


def opened(package: Union[Package, PathLike]) -> Package:
    return package if isinstance(package, Package) else Package(package)


class Session(_library.Handle):
    """The decoder: a history a slot, and logits. Used by one thread at a time."""

    def __init__(
        self,
        package: Union[Package, PathLike],
        *,
        threads: int = 0,
        pool_pages: int = 0,
        kept_histories: int = 0,
        parking_places: int = 0,
        parking_pages: int = 0,
        device: int = 0,
    ):
        """`threads`: 0 is one a CPU; `pool_pages`: 0 is enough for all slots. The
        others are those of kvrm_session_config."""
        self.package = opened(package)
        self.info = self.package.info
        super().__init__(library.kvrm_session_destroy, self.package)
        config = _library.SessionConfig(
            pool_pages=pool_pages,
            threads=threads,
            kept_histories=kept_histories,
            parking_places=parking_places,
            parking_pages=parking_pages,
            device=device,
        )
        library.kvrm_session_create(
            self.package.pointer, ctypes.byref(config), ctypes.byref(self._pointer)
        )

    def _logits(self, rows: int) -> np.ndarray:
        return np.empty((rows, self.info.vocabulary), dtype=np.float32)

    def prefill(self, slot: int, tokens: Ids) -> np.ndarray:
        """Appends tokens to the history of a slot; the logits [vocabulary] behind the
        last of them."""
        ids = as_ids(tokens)
        logits = self._logits(1)[0]
        library.kvrm_prefill(
            self.pointer,
            integer("slot", slot),
            ids_pointer(ids),
            ids.size,
            _floats(logits),
        )
        return logits

    def decode(self, tokens: Ids) -> np.ndarray:
        """One step: a token a slot, -1 for those that are idle. Logits [slots,
        vocabulary], of which the rows of idle slots mean nothing."""
        ids = as_ids(tokens)
        if ids.size != self.info.slots:
            raise ValueError(f"{ids.size} tokens for {self.info.slots} slots")
        logits = self._logits(self.info.slots)
        library.kvrm_decode(self.pointer, ids_pointer(ids), _floats(logits))
        return logits

    def release(self, slot: int) -> None:
        """Forgets the history of a slot."""
        library.kvrm_release(self.pointer, integer("slot", slot))

    def alias(self, target: int, source: int, tokens: int) -> None:
        """The empty slot `target` starts with the first tokens of `source`."""
        library.kvrm_alias(
            self.pointer,
            integer("target", target),
            integer("source", source),
            integer("tokens", tokens),
        )

    def trim(self, slot: int, length: int) -> None:
        """Cuts a history to its first `length` tokens."""
        library.kvrm_trim(
            self.pointer, integer("slot", slot), integer("length", length)
        )

    def length(self, slot: int) -> int:
        """Tokens in the history of a slot."""
        length = ctypes.c_int32()
        library.kvrm_length(self.pointer, integer("slot", slot), ctypes.byref(length))
        return length.value


def _floats(array: np.ndarray):
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_float))


def session_of(package: "Union[Session, Package, PathLike]", options: dict) -> Session:
    """A session, or a new one of a package with options of Session."""
    if not isinstance(package, Session):
        return Session(package, **options)
    if options:
        raise ValueError(f"a session is there already: no {', '.join(options)}")
    return package
