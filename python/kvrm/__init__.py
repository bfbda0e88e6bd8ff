# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""kvrm: static-graph LLM decoders over a paged KV cache.

compile() makes a package of a model, generate() a text; Engine serves many requests
at once, also to `async for`; Session is the decoder itself, with NumPy arrays.
"""

from ._library import KvrmError, version
from .compiler import CompileError, compile
from .engine import Completion, Engine, Logprobs, QueueFullError, Request, Token, generate
from .session import Package, PackageInfo, Session
from .tokenizer import Message, Tokenizer

__version__ = version()

__all__ = [
    "CompileError",
    "Completion",
    "Engine",
    "KvrmError",
    "Logprobs",
    "Message",
    "Package",
    "PackageInfo",
    "QueueFullError",
    "Request",
    "Session",
    "Token",
    "Tokenizer",
    "compile",
    "generate",
]
