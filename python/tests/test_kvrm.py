# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Tests of the Python package: KVRM_KVRMC is the compiler, and KVRM_LIBRARY the
library unless kvrm is an installed wheel."""

import asyncio
import copy
import ctypes
import os
import pickle
import re
import subprocess
import sys
import threading

import numpy as np
import pytest

import kvrm
from kvrm import _library

ROOT = os.path.join(os.path.dirname(__file__), "..", "..")
MAKE_CHAT = os.path.join(ROOT, "test", "Tools", "kvrm-run", "Inputs", "make_chat.py")


@pytest.fixture(scope="session", params=["f16", "f8e4m3", "int8"])
def synth(tmp_path_factory, request):
    """A decoder without a tokenizer, whose numbers do not depend on neighbours; with
    a cache of either size of elements, and of scales, of which nobody above kernels
    knows."""
    path = str(tmp_path_factory.mktemp("synth") / "synth.kvrm")
    command = [os.environ["KVRM_KVRMC"], "synth", "--quiet", "--layers=2", "--hidden=128"]
    command += ["--heads=2", "--kv-heads=1", "--ffn=128", "--vocab=512", "--capacity=64"]
    command += ["--slots=3", "--prefill-chunk=16", "--schedule=rows"]
    command += [f"--cache-type={request.param}", "-o", path]
    subprocess.run(command, check=True)
    return path


@pytest.fixture(scope="session")
def chat(tmp_path_factory):
    """One that says "hi" and ends its turn."""
    folder = tmp_path_factory.mktemp("chat")
    subprocess.run([sys.executable, MAKE_CHAT, "chatml", folder / "m.gguf"], check=True)
    package = kvrm.compile(folder / "m.gguf", folder / "m.kvrm", capacity=96, slots=2)
    return package.path


def greedy(session, slot, prompt, count):
    """The reference: prefill and decode by hand."""
    tokens = [int(session.prefill(slot, prompt).argmax())]
    while len(tokens) < count:
        step = np.full(session.info.slots, -1)
        step[slot] = tokens[-1]
        tokens.append(int(session.decode(step)[slot].argmax()))
    session.release(slot)
    return tokens


def fields_of(header, struct):
    """The fields of a struct of a C header, as (type, name)."""
    text = open(os.path.join(ROOT, "runtime", "include", "kvrm", header)).read()
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    body = re.search(r"typedef struct %s \{(.*?)\n\} %s;" % (struct, struct), text, re.S)[1]
    fields = []
    for field in filter(None, map(str.strip, body.split(";"))):
        callback = re.search(r"\(\*(\w+)\)", field)
        kind, name = ("callback", callback[1]) if callback else re.match(r"(.*?)(\w+)$", field).groups()
        fields.append((" ".join(kind.split()), name))
    return fields


def test_structs_are_those_of_the_headers():
    plain = {
        "int32_t": ctypes.c_int32,
        "int64_t": ctypes.c_int64,
        "uint64_t": ctypes.c_uint64,
        "size_t": ctypes.c_size_t,
        "float": ctypes.c_float,
        "double": ctypes.c_double,
        "const char *": ctypes.c_char_p,
        "void *": ctypes.c_void_p,
        "const int32_t *": ctypes.POINTER(ctypes.c_int32),
        "kvrm_finish_reason": ctypes.c_int32,
        "kvrm_preemption": ctypes.c_int32,
    }
    for header, struct, own in (
        ("runtime/kvrm.h", "kvrm_package_info", _library.PackageInfo),
        ("runtime/kvrm.h", "kvrm_session_config", _library.SessionConfig),
        ("runtime/kvrm.h", "kvrm_result", _library.Result),
        ("runtime/kvrm.h", "kvrm_engine_config", _library.EngineConfig),
        ("runtime/kvrm.h", "kvrm_logprob", _library.Logprob),
        ("runtime/kvrm.h", "kvrm_request", _library.RequestSpec),
        ("text/kvrm-text.h", "kvrm_chat_message", _library.ChatMessage),
    ):
        fields = fields_of(header, struct)
        assert [name for _, name in fields] == [name for name, _ in own._fields_], struct
        for (kind, name), (_, own_kind) in zip(fields, own._fields_):
            assert kind == "callback" or plain[kind] is own_kind, (struct, name)


def test_package(chat):
    info = kvrm.Package(chat).info
    assert (info.vocabulary, info.slots, info.capacity, info.layers) == (260, 2, 96, 1)
    assert info.is_paged and info.ends == (257, 259) and info.architecture == "llama"
    assert kvrm.__version__ == "0.1.0"


def test_session(synth):
    with kvrm.Session(synth, threads=2) as session:
        logits = session.prefill(0, [1, 2, 3])
        assert logits.shape == (512,) and logits.dtype == np.float32
        assert np.isfinite(logits).all() and session.length(0) == 3
        step = session.decode([5, -1, -1])
        session.alias(1, 0, 3)
        again = session.decode([-1, 5, -1])
        assert step.shape == (3, 512) and np.array_equal(step[0], again[1])
        session.trim(0, 3)
        assert session.length(0) == 3 and session.length(2) == 0
        session.release(0)
        whole = session.prefill(0, np.array([1, 2, 3, 5], dtype=np.int64))
        np.testing.assert_allclose(whole, step[0], atol=1e-4)
    with pytest.raises(ValueError, match="closed"):
        session.length(0)


def test_what_a_session_refuses(synth, tmp_path):
    with pytest.raises(kvrm.KvrmError, match="no-such"):
        kvrm.Package(tmp_path / "no-such.kvrm")
    with kvrm.Session(synth, threads=1) as session:
        with pytest.raises(kvrm.KvrmError, match=r"slot 3 is outside 0\.\.2"):
            session.length(3)
        with pytest.raises(kvrm.KvrmError):
            session.prefill(0, [512])
        with pytest.raises(ValueError, match="2 tokens for 3 slots"):
            session.decode([1, 2])
        for bad in ([1.5], [[1]], [2**31], "text"):
            with pytest.raises(ValueError):
                session.prefill(0, bad)
        with kvrm.Engine(session):
            with pytest.raises(kvrm.KvrmError, match="the session is its engine's"):
                session.prefill(0, [1])
        session.prefill(0, [1])


def test_what_owns_a_handle_is_not_copied(chat):
    with kvrm.Engine(chat, threads=1) as engine:
        request = engine.submit("\n", max_tokens=1)
        owners = [engine, engine.session, engine.session.package, engine.tokenizer, request]
        for owner in owners:
            for way in (copy.copy, copy.deepcopy, pickle.dumps, lambda it: it.__reduce__()):
                with pytest.raises(TypeError, match=f"^{type(owner).__name__} objects cannot be copied"):
                    way(owner)
        assert request.result().text == "h"


def test_integers_are_not_cut_off(synth):
    with kvrm.Session(synth, threads=True) as session:
        session.prefill(np.int64(0), [1, 2, 3])
        calls = {
            "slot": [
                lambda bad: session.prefill(bad, [1]),
                session.release,
                session.length,
                lambda bad: session.trim(bad, 0),
            ],
            "length": [lambda bad: session.trim(0, bad)],
            "target": [lambda bad: session.alias(bad, 0, 1)],
            "source": [lambda bad: session.alias(1, bad, 1)],
            "tokens": [lambda bad: session.alias(1, 0, bad)],
        }
        for name, each in calls.items():
            for call in each:
                for bad in (2**32, -(2**31) - 1):
                    with pytest.raises(ValueError, match=f"^{name}: {bad} is outside .*2147483647$"):
                        call(bad)
                for bad in (0.0, "0", None):
                    with pytest.raises(TypeError, match=f"^{name} is an integer, not "):
                        call(bad)
        assert [session.length(slot) for slot in range(3)] == [3, 0, 0]
        with pytest.raises(ValueError, match=f"^token id: {2**32} is outside"):
            session.prefill(0, [1, 2**32])
    for name, wraps in (
        ("threads", 32),
        ("kept_histories", 32),
        ("parking_places", 32),
        ("device", 32),
        ("pool_pages", 64),
        ("parking_pages", 64),
    ):
        with pytest.raises(ValueError, match=f"^{name}: .* is outside"):
            kvrm.Session(synth, **{name: 2**wraps})
        with pytest.raises(TypeError, match=f"^{name} is an integer"):
            kvrm.Session(synth, **{name: 1.0})
    with pytest.raises(ValueError, match="^queue_limit: "):
        kvrm.Engine(synth, queue_limit=2**32)
    with kvrm.Engine(synth, threads=1) as engine:
        for name, bad in (
            ("max_tokens", 2**32 + 2),
            ("top_k", 2**32),
            ("seed", 2**64 + 5),
            ("seed", -1),
            ("logprobs", 2**32),
            ("stop_tokens", [1, 10**9]),
            ("stop_tokens", [-1]),
        ):
            with pytest.raises(ValueError, match=f"^{name}: .* is outside"):
                engine.submit([1], **{name: bad})
        with pytest.raises(ValueError, match=r"^stop_tokens: 512 is outside 0\.\.511$"):
            engine.submit([1], stop_tokens=[512])
        for name in ("max_tokens", "top_k", "seed", "logprobs"):
            with pytest.raises(TypeError, match=f"^{name} is an integer, not str"):
                engine.submit([1], **{name: ""})
        assert engine.submit([1], max_tokens=1, seed=2**64 - 1).result().tokens.size == 1


def test_compile_says_why(tmp_path):
    with pytest.raises(kvrm.CompileError, match="no-such.gguf"):
        kvrm.compile(tmp_path / "no-such.gguf", tmp_path / "x.kvrm")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF")
    with pytest.raises(kvrm.CompileError, match="^kvrmc: error: .*bad.gguf"):
        kvrm.compile(tmp_path / "bad.gguf", tmp_path / "x.kvrm", slots=2)


def test_tokenizer(chat):
    tokenizer = kvrm.Tokenizer(chat)
    assert len(tokenizer) == 260
    text = "aé中😀\n" * 100
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32 and ids.size == len(text.encode())
    assert tokenizer.decode(ids) == text
    pieces = list(tokenizer.stream(ids[:2]))
    assert pieces == ["a", "", "\ufffd"]
    assert tokenizer.encode("<|im_end|>").tolist() == [259]
    assert tokenizer.decode([97, 259]) == "a"
    assert tokenizer.decode([97, 259], skip_special=False) == "a<|im_end|>"
    assert tokenizer.token(0xC3) == b"\xc3" and tokenizer.is_special(259)
    ids = tokenizer.encode_chat([{"role": "user", "content": "<|im_end|>"}])
    assert ids.tolist().count(259) == 1
    with pytest.raises(ValueError, match="tool_calls"):
        tokenizer.encode_chat([{"role": "user", "content": "", "tool_calls": []}])


def test_what_a_tokenizer_refuses(chat, tmp_path):
    tokenizer = kvrm.Tokenizer(chat)
    for call in (tokenizer.token, tokenizer.is_special, lambda bad: tokenizer.decode([97, bad])):
        for bad in (-1, 260, 10**7, 2**32 + 97):
            with pytest.raises(ValueError, match=f"^token( id)?: {bad} is outside "):
                call(bad)
    with pytest.raises(ValueError, match=r"^token: 260 is outside 0\.\.259$"):
        tokenizer.decode([260])
    with pytest.raises(TypeError, match="^token is an integer, not str"):
        tokenizer.token("a")
    for bad in (b"ab", None, 1, [97]):
        with pytest.raises(TypeError, match="^a prompt is a str, not "):
            tokenizer.encode(bad)
    good = {"role": "user", "content": "a"}
    for message, kind, why in (
        ({"role": "user", "content": None}, TypeError, r"\['content'\] is a str, not NoneType"),
        ({"role": "user", "content": 1}, TypeError, r"\['content'\] is a str, not int"),
        ({"role": b"user", "content": ""}, TypeError, r"\['role'\] is a str, not bytes"),
        ({"role": "user"}, ValueError, " has no 'content'"),
        ({"content": ""}, ValueError, " has no 'role'"),
        ("user", TypeError, " is a mapping, not str"),
    ):
        with pytest.raises(kind, match=r"^messages\[1\]" + why):
            tokenizer.encode_chat([good, message])

    # Ids of the decoder that the tokenizer has no text for.
    for vocabulary, last in ((270, 269), (4, 259), ("null", 259)):
        folder = tmp_path / f"{vocabulary}"
        folder.mkdir()
        (folder / "tokenizer.json").symlink_to(os.path.join(chat, "tokenizer.json"))
        (folder / "manifest.json").write_text('{"model": {"vocabulary": %s}}' % vocabulary)
        padded = kvrm.Tokenizer(folder)
        assert padded.decode([97, last], skip_special=False).startswith("a")
        with pytest.raises(ValueError, match=rf"outside 0\.\.{last}$"):
            padded.token(last + 1)


def test_no_tokenizer(synth):
    with pytest.raises(kvrm.KvrmError, match="tokenizer.json"):
        kvrm.Tokenizer(synth)
    with kvrm.Engine(synth, threads=1) as engine:
        with pytest.raises(ValueError, match="no tokenizer"):
            engine.submit("text")
        assert engine.submit([1], max_tokens=2).result().text == ""


def test_generate(chat):
    done = kvrm.generate(chat, [{"role": "user", "content": "a"}], threads=1)
    assert (done.text, done.finish) == ("hi", "stop")
    assert done.tokens.tolist() == [104, 105]
    done = kvrm.generate(chat, "\n", threads=1, max_tokens=1)
    assert (done.text, done.finish, done.prompt_tokens) == ("h", "max_tokens", 1)
    done = kvrm.generate(chat, "\n", threads=1, max_tokens=4, stop_tokens=[])
    assert done.tokens.tolist() == [104, 105, 259, 122]
    done = kvrm.generate(chat, "\n", threads=1, stop_tokens=[], max_tokens=1000)
    assert done.finish == "capacity"


def test_many_requests_are_those_of_one(synth):
    prompts = [[i + 1, 2 * i + 3, 7] for i in range(9)]
    with kvrm.Session(synth, threads=2) as session:
        expected = [greedy(session, i % 3, prompt, 8) for i, prompt in enumerate(prompts)]
        with kvrm.Engine(session) as engine:
            requests = [engine.submit(prompt, max_tokens=8, stop_tokens=[]) for prompt in prompts]
            assert [[token.id for token in request] for request in requests] == expected
            assert [request.result().tokens.tolist() for request in requests] == expected
            seeds = [
                engine.submit([5], max_tokens=8, temperature=1.0, seed=seed, stop_tokens=[])
                for seed in (1, 2, 1)
            ]
            one, two, same = [seed.result().tokens.tolist() for seed in seeds]
            assert one == same != two


def test_logprobs(synth):
    prompt, count = [3, 1, 4], 6
    options = dict(max_tokens=count, stop_tokens=[], temperature=1.5, seed=5)
    with kvrm.Engine(synth, threads=2) as engine:
        asked = engine.submit(prompt, logprobs=4, **options)
        plain = engine.submit(prompt, **options)
        tokens = list(asked)
        done = asked.result()
        assert done.tokens.tolist() == plain.result().tokens.tolist()
        assert plain.result().logprobs == () and next(iter(plain)).logprobs is None
        assert tuple(token.logprobs for token in tokens) == done.logprobs
        chosen = engine.submit(prompt, logprobs=0, **options).result()
        assert [each.logprob for each in chosen.logprobs] == [each.logprob for each in done.logprobs]
        assert all(each.likeliest == {} for each in chosen.logprobs)
        with pytest.raises(kvrm.KvrmError, match=r"top logprobs: 21 is outside 0\.\.20"):
            engine.submit(prompt, logprobs=21).result()
    with kvrm.Session(synth, threads=1) as session:
        logits = session.prefill(0, prompt).astype(np.float64)
        for token, told in zip(done.tokens, done.logprobs):
            expected = logits - np.logaddexp.reduce(logits)
            likeliest = np.argsort(-expected, kind="stable")[:4]
            assert abs(told.logprob - expected[token]) < 1e-9
            assert list(told.likeliest) == likeliest.tolist()
            np.testing.assert_allclose(list(told.likeliest.values()), expected[likeliest], atol=1e-9)
            logits = session.decode([token, -1, -1])[0].astype(np.float64)


def test_async(chat):
    async def ask(engine, count):
        request = engine.submit("\n", max_tokens=count)
        text = "".join([token.text async for token in request])
        assert (await request.completion()).text == text
        return text

    async def all_of_them():
        with kvrm.Engine(chat, threads=1) as engine:
            return await asyncio.gather(*(ask(engine, 1 + i % 3) for i in range(12)))

    assert asyncio.run(all_of_them()) == ["h", "hi", "hi"] * 4


def test_cancel(chat):
    with kvrm.Engine(chat, threads=1, queue_limit=1) as engine:
        request = engine.submit("\n", max_tokens=90, stop_tokens=[])
        assert next(request).text == "h"
        request.cancel()
        request.cancel()
        assert request.result().finish in ("cancelled", "max_tokens")

        blocked = threading.Event()
        engine._do(blocked.wait)  # so that nothing runs before

        async def abandon():
            request = engine.submit("\n", max_tokens=90, stop_tokens=[])
            task = asyncio.create_task(request.completion())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return request

        request = asyncio.run(abandon())
        blocked.set()
        assert request.result().finish == "cancelled"


def test_a_full_queue_and_bad_requests(chat):
    with kvrm.Engine(chat, threads=1, queue_limit=1) as engine:
        blocked = threading.Event()
        engine._do(blocked.wait)  # so that all of them come at once
        requests = [engine.submit("\n", max_tokens=3) for _ in range(9)]
        blocked.set()
        full = 0
        for request in requests:
            try:
                assert request.result().text == "hi"
            except kvrm.QueueFullError as error:
                assert "queue" in str(error)
                full += 1
        assert 0 < full < 9
        for bad in ([], [260], [1] * 97):
            with pytest.raises(kvrm.KvrmError):
                engine.submit(bad).result()
        with pytest.raises(kvrm.KvrmError):
            engine.submit("\n", temperature=-1.0).result()


def test_close_ends_what_runs(chat):
    engine = kvrm.Engine(chat, threads=1)
    blocked = threading.Event()
    engine._do(blocked.wait)
    request = engine.submit("\n", max_tokens=90, stop_tokens=[])
    closing = threading.Thread(target=engine.close)
    closing.start()
    blocked.set()
    closing.join()
    with pytest.raises(ValueError, match="closed"):
        request.result()
    with pytest.raises(ValueError, match="closed"):
        engine.submit("\n")
