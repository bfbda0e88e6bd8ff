# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Runs `kvrm-run serve` and asks it what clients ask, and what they should not.

    serve_check.py SYNTH TEXT PICKY

SYNTH is a package without a tokenizer, 4 slots and the schedule rows, TEXT the
chatml model of make_chat.py, PICKY the one whose template refuses. Answers are compared with those of `generate`.
"""

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
from serving import Server, head, raw, reset


def generate(package, ids, most, **sampling):
    """What `kvrm-run generate` gives alone."""
    options = [f"--{name.replace('_', '-')}={value}" for name, value in sampling.items()]
    command = ["kvrm-run", "generate", package, "--json", "--ignore-eos", f"-n{most}"]
    command += ["--token-ids", ",".join(map(str, ids)), *options]
    return json.loads(subprocess.check_output(command))["requests"][0]["tokens"]


LONG = {"prompt": [1, 2, 3], "max_tokens": 500, "ignore_eos": True}


def check_equal_to_generate(server, package):
    """Alone, streamed, seeded: the tokens of `generate`. Returns them."""
    generator = random.Random(os.getpid())
    expected = []
    for i in range(10):
        body = {
            "prompt": [generator.randrange(512) for _ in range(generator.choice((1, 7, 33)))],
            "max_tokens": (100, 1, 7, 100)[i % 4],
            "temperature": (0, 0.7, 1.5)[i % 3],
            "top_p": (1, 0.9)[i % 2],
            "top_k": (0, 20)[i % 2],
            "seed": generator.getrandbits(64),
        }
        sampling = {k: body[k] for k in ("temperature", "top_p", "top_k", "seed")}
        tokens = generate(package, body["prompt"], body["max_tokens"], **sampling)
        body |= {"ignore_eos": True, "return_token_ids": True}
        expected.append((body, tokens))
        status, answer = server.ask("/v1/completions", body)
        assert status == 200, answer
        choice = answer["choices"][0]
        assert choice["token_ids"] == tokens, (body, choice, tokens)
        assert choice["finish_reason"] == "length"
        assert answer["usage"]["prompt_tokens"] == len(body["prompt"])
        assert answer["usage"]["completion_tokens"] == len(tokens)
        events = server.stream("/v1/completions", body)
        assert sum((e["choices"][0]["token_ids"] for e in events), []) == tokens
    print("equal to generate")
    return expected


def logprobs_of(package, sequences, name="logits.npy"):
    """Of the token behind each that is not of the prompt: float64, from the logits that
    `kvrm-run score` writes of (prompt, tokens)."""
    command = ["kvrm-run", "score", package, "--logits", name]
    for prompt, tokens in sequences:
        command += ["--token-ids", ",".join(map(str, prompt + tokens))]
        command += ["--prompt-length", str(len(prompt))]
    subprocess.check_output(command)
    logits = np.load(name).astype(np.float64)
    return [
        row[: len(tokens)] - np.logaddexp.reduce(row[: len(tokens)], axis=1, keepdims=True)
        for row, (_, tokens) in zip(logits, sequences)
    ]


def check_logprobs(server, package):
    """Those of the model's logits, whatever chose the token, whole and streamed."""
    bodies = [
        {"prompt": [3], "temperature": 0, "logprobs": 5},
        {"prompt": list(range(40)), "temperature": 1.5, "top_p": 0.9, "seed": 7, "logprobs": 3},
        {"prompt": [5, 9], "temperature": 2, "top_k": 20, "seed": 8, "logprobs": 0},
    ]
    choices = []
    for body in bodies:
        body |= {"max_tokens": 20, "ignore_eos": True, "return_token_ids": True}
        status, answer = server.ask("/v1/completions", body)
        assert status == 200, answer
        choices.append(answer["choices"][0])
        events = [e["choices"][0]["logprobs"] for e in server.stream("/v1/completions", body)]
        for name, values in choices[-1]["logprobs"].items():
            assert sum((event[name] for event in events if event), []) == values
    tokens = [choice["token_ids"] for choice in choices]
    expected = logprobs_of(package, [(b["prompt"], t) for b, t in zip(bodies, tokens)])
    for body, choice, ids, rows in zip(bodies, choices, tokens, expected):
        got = choice["logprobs"]
        assert got["tokens"] == [f"token_id:{id}" for id in ids]
        assert got["text_offset"] == [0] * len(ids)
        np.testing.assert_allclose(got["token_logprobs"], rows[range(len(ids)), ids], atol=1e-9)
        for id, top, row in zip(ids, got["top_logprobs"], rows):
            likeliest = np.argsort(-row, kind="stable")[: body["logprobs"]].tolist()
            want = likeliest + [id] * (id not in likeliest)
            assert list(top) == [f"token_id:{id}" for id in want], (top, want)
            np.testing.assert_allclose(list(top.values()), row[want], atol=1e-9)
    print("logprobs")


def check_saturation(server, expected, clients=48, seconds=2.5):
    """Four times as many clients as slots and queue take."""
    deadline = time.monotonic() + seconds
    served, refused, wrong = [0], [0], []
    lock = threading.Lock()

    def client(seed):
        generator = random.Random(seed)
        connection = server.connect()
        while time.monotonic() < deadline:
            body, tokens = generator.choice(expected)
            try:
                if generator.random() < 0.5:
                    status, answer = server.ask("/v1/completions", body, connection)
                    got = status == 200 and answer["choices"][0]["token_ids"]
                else:
                    status = 200
                    events = server.stream("/v1/completions", body)
                    got = sum((e["choices"][0]["token_ids"] for e in events), [])
            except AssertionError as error:
                status, answer = 429, json.loads(error.args[0])
            with lock:
                if status == 429:
                    assert "queue full" in answer["error"]["message"], answer
                    refused[0] += 1
                elif status == 200 and got == tokens:
                    served[0] += 1
                else:
                    wrong.append((status, body, tokens))

    threads = [threading.Thread(target=client, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert not wrong, wrong[0]
    assert served[0] > 0 and refused[0] > 0, (served, refused)
    server.until_free()
    server.until(lambda m: m['kvrm_requests_total{outcome="queue_full"}'] == refused[0])
    metrics = server.metrics()
    assert metrics['kvrm_requests_total{outcome="client_gone"}'] == 0
    hows = ("parked", "recomputed")
    assert sum(metrics[f'kvrm_preemptions_total{{how="{how}"}}'] for how in hows) > 0, metrics
    print("saturated")


def check_retry_after(server):
    """A full queue says when to come again."""
    clients = [server.socket() for _ in range(40)]
    body = json.dumps(LONG).encode()
    for client in clients:
        client.sendall(head(len(body)) + body)
    answers = [client.recv(400) for client in clients if time.sleep(0.001) is None]
    assert any(b"429 Too Many Requests" in a and b"Retry-After: 1" in a for a in answers)
    for client in clients:
        client.close()
    server.until_free()
    print("full queue")


def check_client_gone(server):
    """Slots and pages are free as soon as a client goes, in whichever way."""
    body = json.dumps(LONG).encode()
    streamed = json.dumps(dict(LONG, stream=True)).encode()
    ways = [lambda c: c.close(), reset]
    for data in (body, streamed):
        for way in ways:
            before = server.metrics()['kvrm_requests_total{outcome="client_gone"}']
            client = server.socket()
            client.sendall(head(len(data)) + data)
            way(client)
            server.until(
                lambda m: m['kvrm_requests_total{outcome="client_gone"}'] == before + 1
            )
            server.until_free()
            client.close()
    print("clients gone")


def check_bad_bytes(server):
    """What is no request is refused, and in time."""
    start = time.monotonic()
    answer = raw(server, b"GET / HTTP/1.1\r\nHost: ", b"a", b"b", b"c", pause=0.3)
    assert b"408 Request Timeout" in answer, answer
    assert time.monotonic() - start < 5
    assert raw(server) == b""  # nothing said, nothing answered
    assert b"408" in raw(server, head(100) + b"{", pause=0.1)
    assert b"431" in raw(server, b"GET / HTTP/1.1\r\nX: " + b"a" * 5000)
    assert b"431" in raw(server, b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 1000)
    assert b"413" in raw(server, head(10**9))
    assert b"413" in raw(server, head(100001) + b" " * 100001)
    chunked = head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    assert b"411 Length Required" in raw(server, chunked + b"0\r\nA: b\r\n\r\n")
    both = head(3).replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert b"400 Bad Request" in raw(server, both)
    assert b"400 Bad Request" in raw(server, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    noise = random.Random(1).randbytes(3000)
    assert b"HTTP/1.1 4" in raw(server, noise)
    for answer in (raw(server, noise), raw(server, both)):
        assert json.loads(answer.split(b"\r\n\r\n")[1])["error"]["type"] == "invalid_request_error"
    print("bad bytes")


def check_bad_bodies(server):
    """Each names what is wrong. The request is not run."""
    ask = lambda body, path="/v1/completions": server.ask(path, body)
    for body, why in (
        (b"{", "the body is not valid JSON, at byte 2"),
        (b'{"prompt": "\xff"}', "the body is not valid UTF-8, at byte 13"),
        (b"[" * 90000, "the body is nested deeper than 32"),
        (b"[]", "the body is not a JSON object"),
        ({}, "prompt: is missing"),
        ({"prompt": [1], "tempersture": 1}, "tempersture: is no field that is known here"),
        ({"prompt": [1], "n": 2}, "n: is not supported, but for 1"),
        ({"prompt": [1], "logprobs": 6}, "logprobs: is not a whole number of 0 to 5"),
        ({"prompt": [1], "logprobs": 1, "echo": True}, "echo: is not supported, but for false"),
        ({"prompt": [1], "echo": True}, "echo: is not supported, but for false"),
        ({"prompt": [1], "temperature": 3}, "temperature: is not a number of 0 to 2"),
        ({"prompt": [1], "max_tokens": 0}, "max_tokens: is not a whole number of 1 to 2147483647"),
        ({"prompt": [1], "max_tokens": 501}, "max_tokens: 501 is more than this server's 500"),
        ({"prompt": [512]}, "token 512 is outside 0..511"),
        ({"prompt": [1] * 513}, "prompt: 513 tokens exceed the capacity 512"),
        ({"prompt": [[1], [2]]}, "prompt: has 2 prompts; a request is of one"),
        ({"prompt": "a"}, "prompt: the package has no tokenizer;"),
        ({"prompt": [1], "stop": ["a", "b", "c", "d", "e"]}, "stop: is not a text or a list of"),
    ):
        status, answer = ask(body)
        assert status == 400, (body, answer)
        assert answer["error"]["message"].startswith(why), (answer, why)
    status, answer = ask({"prompt": [1], "model": "gpt-4"})
    assert (status, answer["error"]["code"]) == (404, "model_not_found"), answer
    assert server.get("/nowhere")[0] == 404
    assert server.get("/v1/completions")[0] == 405
    connection = server.connect()
    connection.request("POST", "/v1/completions", b"{}", {"Content-Type": "text/plain"})
    assert connection.getresponse().status == 415
    assert server.metrics()['kvrm_tokens_total{kind="prompt"}'] == 0
    print("bad bodies")


def check_slow_reader(package):
    """One that does not read is cut off; others go on."""
    with Server(package, "--write-timeout", "0.5") as server:
        body = json.dumps(dict(LONG, stream=True, return_token_ids=True)).encode()
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.connect(("127.0.0.1", server.port))
        for _ in range(200):  # the answers to all of them fill what buffers there are
            client.sendall(head(len(body)) + body)
        server.until(lambda m: m['kvrm_requests_total{outcome="slow_reader"}'] == 1)
        server.until_free()
        assert server.ask("/v1/completions", LONG)[0] == 200
        server.end()
    print("slow reader")


def check_text_logprobs(server, chat):
    """The form of a chat: greedy tokens are the likeliest."""
    asked = dict(chat, logprobs=True, top_logprobs=20)
    answer = server.ask("/v1/chat/completions", asked)[1]
    content = answer["choices"][0]["logprobs"]["content"]
    assert [(c["token"], c["bytes"]) for c in content] == [("h", [104]), ("i", [105])]
    for entry in content:
        top = entry.pop("top_logprobs")
        values = [other["logprob"] for other in top]
        assert len(top) == 20 and top[0] == entry and values == sorted(values, reverse=True)
        for other in top:  # tokens are bytes, and special ones
            isText = other["bytes"] is not None and other["bytes"][0] < 128
            assert not isText or list(other["token"].encode()) == other["bytes"], other
            assert isText or other["token"] == f"\\x{other['bytes'][0]:02x}", other
    content = answer["choices"][0]["logprobs"]["content"]
    events = [e["choices"][0]["logprobs"] for e in server.stream("/v1/chat/completions", asked)]
    streamed = sum((event["content"] for event in events if event), [])
    assert [entry["token"] for entry in streamed] == ["h", "i"], streamed
    assert [entry["logprob"] for entry in streamed] == [entry["logprob"] for entry in content]
    refused = server.ask("/v1/chat/completions", dict(chat, top_logprobs=1))
    message = "top_logprobs: is there without logprobs"
    assert (refused[0], refused[1]["error"]["message"]) == (400, message), refused


def check_text(package):
    """Text: chats, stop texts, what `generate` says."""
    with Server(package, "--model-name", "says-hi") as server:
        chat = {"messages": [{"role": "user", "content": "a"}], "temperature": 0}
        answer = server.ask("/v1/chat/completions", dict(chat, model="says-hi"))[1]
        assert answer["choices"][0]["message"] == {"role": "assistant", "content": "hi"}
        assert answer["choices"][0]["finish_reason"] == "stop"
        events = server.stream(
            "/v1/chat/completions", dict(chat, stream_options={"include_usage": True})
        )
        assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        assert "".join(e["choices"][0]["delta"].get("content", "") for e in events[:-1]) == "hi"
        assert events[-1]["usage"]["completion_tokens"] == 2 and events[-1]["choices"] == []
        check_text_logprobs(server, chat)
        on = {"prompt": "a\n", "temperature": 0, "ignore_eos": True, "max_tokens": 9}
        for stop, text in (("z\nh", "hi"), (["q", "iz"], "h"), ("z\nx", "hiz\nhiz")):
            answer = server.ask("/v1/completions", dict(on, stop=stop, logprobs=0))[1]
            assert answer["choices"][0]["text"] == text, answer
            tokens = answer["choices"][0]["logprobs"]["tokens"]
            assert "".join(t for t in tokens if t != "<|im_end|>") == text, tokens
            events = server.stream("/v1/completions", dict(on, stop=stop))
            assert "".join(e["choices"][0]["text"] for e in events) == text, events
        for length, unit in ((97, "tokens"), (2000, "bytes")):
            error = server.ask("/v1/completions", {"prompt": "a" * length})[1]["error"]
            assert error["message"] == f"prompt: {length} {unit} exceed the capacity 96", error
            assert error["code"] == "context_length_exceeded"
        models = json.loads(server.get("/v1/models")[1])["data"]
        assert [m["id"] for m in models] == ["says-hi"]
        assert "<title>" in server.get("/")[1]
        server.end(signal.SIGINT)
    print("text")


def check_drain(package):
    """Running requests end, new ones are refused, then the server is gone."""
    with Server(package) as server:
        connection = server.connect()
        body = json.dumps(dict(LONG, stream=True, max_tokens=500))
        late = server.connect()
        late.connect()
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.read(10)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.02)
        try:
            status = server.ask("/v1/completions", LONG, late)[0]
            assert status == 503, status
        except (ConnectionError, http.client.HTTPException):
            pass  # it was done already
        assert response.read().endswith(b"data: [DONE]\n\n")
        assert server.process.wait(10) == 0
    # One that takes too long is cut off, and told.
    with Server(package, "--drain-timeout", "0") as server:
        connection = server.connect()
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        server.end()
        rest = response.read()
        assert b"the server is stopping" in rest or rest.endswith(b"[DONE]\n\n"), rest[-200:]
    print("drained")


def check_refusing_template(package):
    with Server(package) as server:
        chat = {"messages": [{"role": "user", "content": "a"}]}
        status, answer = server.ask("/v1/chat/completions", chat)
        message = "messages: the chat template refuses the conversation: No user"
        assert (status, answer["error"]["message"]) == (400, message), answer
        server.end()
    print("refusing template")


def main():
    synth, text, picky = sys.argv[1:]
    limits = "--queue-limit=8 --max-tokens=500 --request-timeout=1 --max-header=4096"
    limits += " --max-body=100000"
    with Server(synth, *limits.split()) as server:
        assert server.get("/health") == (200, '{"status":"ok"}\n')
        check_bad_bodies(server)
        check_bad_bytes(server)
        check_client_gone(server)
    # A pool for one of the longest requests: others are preempted.
    pool = "--pool-pages=10 --parking-places=1 --parking-pages=9"
    with Server(synth, "--queue-limit=8", *pool.split()) as server:
        expected = check_equal_to_generate(server, synth)
        check_logprobs(server, synth)
        check_saturation(server, expected)
        server.end()
    with Server(synth, "--queue-limit=8") as server:
        check_retry_after(server)
        server.end()
    check_slow_reader(synth)
    check_text(text)
    check_refusing_template(picky)
    check_drain(synth)


main()
