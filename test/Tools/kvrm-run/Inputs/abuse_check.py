# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Sends `kvrm-run serve` what no well-behaved client sends.

    abuse_check.py SYNTH

SYNTH is a package without a tokenizer and with 4 slots. Every answer is the right
one, and afterwards the server has no more threads, files and memory than before.
"""

import json
import os
import re
import socket
import sys
import threading
import time

from serving import Server, head, raw, reset

MILLION = 10**6
OK = b"GET /health HTTP/1.1\r\nHost: a\r\n"
SHORT = {"prompt": [1, 2, 3], "max_tokens": 5, "ignore_eos": True, "return_token_ids": True}


def statuses(answer):
    """Of the answers in what a server sent."""
    return [int(status) for status in re.findall(rb"^HTTP/1\.1 (\d+) ", answer, re.MULTILINE)]


def expect(server, status, *parts, pause=0.0, why=None):
    """One answer of an error, in the API's form, and then the end."""
    answer = raw(server, *parts, pause=pause)
    assert statuses(answer) == [status], (status, parts[0][:200], answer)
    error = json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]
    assert error["type"] == "invalid_request_error", error
    assert why is None or why in error["message"], error
    assert b"\r\nConnection: close\r\n" in answer, answer


def post(body, **fields):
    """A request with its head; fields replace those of the head."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    text = head(len(data))
    for name, value in fields.items():
        name = name.replace("_", "-")
        text = re.sub(f"{name}: .*\r\n".encode(), b"", text, flags=re.IGNORECASE)
        if value is not None:
            text = text[:-2] + f"{name}: {value}\r\n\r\n".encode()
    return text + data


def owned(server):
    """Threads, open files and resident KiB of the server."""
    root = f"/proc/{server.process.pid}"
    with open(root + "/status") as file:
        status = dict(line.split(":", 1) for line in file)
    return int(status["Threads"]), len(os.listdir(root + "/fd")), int(status["VmRSS"].split()[0])


def check_long_headers(server):
    """A million bytes of header, by one line, by many and by the target."""
    before = owned(server)
    for text in (
        OK + b"X: " + b"a" * MILLION + b"\r\n\r\n",
        OK + b"X: a\r\n" * (MILLION // 6) + b"\r\n",
        OK + b"X" * MILLION,
        b"GET /" + b"a" * MILLION + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /health?" + b"a" * MILLION,
        b"A" * MILLION,
    ):
        for size in (len(text), 100_000):
            pieces = [text[at : at + size] for at in range(0, len(text), size)]
            expect(server, 431, *pieces, why="the headers are longer than 16384 bytes")
    assert owned(server)[2] - before[2] < 4096, (before, owned(server))
    print("long headers")


def check_targets(server):
    """Bytes that no target has, and targets that are no page."""
    for target in (b"/\xff\xfe", b"/%ff%fe", b"/%", b"/%zz", b"/%00", b"/health%00", b"*", b"//health"):
        answer = raw(server, b"GET " + target + b" HTTP/1.0\r\n\r\n")
        assert statuses(answer)[0] in (400, 404), (target, answer)
        json.loads(answer.split(b"\r\n\r\n", 1)[1])
    for target in (b"/health", b"/%68ealth", b"/health?\xc3\xa9", b"http://a:1/health"):
        assert statuses(raw(server, b"GET " + target + b" HTTP/1.0\r\n\r\n")) == [200], target
    for line in (b"GET /\0 HTTP/1.1", b"GET / a HTTP/1.1", b"GET  / HTTP/1.1", b"G\0T / HTTP/1.1"):
        expect(server, 400, line + b"\r\nHost: a\r\n\r\n")
    print("targets")


def check_fields(server):
    """Fields of a header that are none, or that two may read differently."""
    for field in (b"X: a\0b", b"X\0: a", b"X : a", b": a", b"X", b"\xff: a", b"Host: b"):
        expect(server, 400, OK + field + b"\r\n\r\n")
    expect(server, 400, b"GET /health HTTP/1.1\r\n\r\n", why="one Host")
    for length in ("-1", "+5", "0x5", "5, 6", "5 5", "1e3", "", "9" * 20, "5\r\nContent-Length: 6"):
        expect(server, 400, post(b"{}   ", Content_Length=length), why="bad Content-Length")
    length = len(json.dumps(SHORT))  # twice the same is what HTTP allows
    text = post(SHORT, Content_Length=f"{length}\r\nContent-Length: {length}", Connection="close")
    assert statuses(raw(server, text)) == [200]
    for coding in ("chunked", "gzip", "identity", "chunked, identity", "xchunked", ""):
        expect(server, 411, post(b"", Content_Length=None, Transfer_Encoding=coding))
    chunks = b"2\r\n{}\r\n0\r\n\r\n"
    expect(server, 411, post(chunks, Content_Length=None, Transfer_Encoding="chunked"))
    for coding in ("chunked", "gzip"):
        answer = raw(server, post(b"{}", Transfer_Encoding=coding) + OK + b"\r\n")
        assert len(statuses(answer)) == 1 and statuses(answer)[0] in (400, 411), answer
    print("fields")


def check_lengths(server):
    """A body that is not as long as its header says."""
    text = post(SHORT)
    answer = raw(server, text + b"{}\r\n\r\n")
    assert statuses(answer) == [200, 400], answer
    expect(server, 408, text[:-1], why="longer than 500 ms")
    with server.socket() as client:
        client.sendall(text[:-1])
        client.shutdown(socket.SHUT_WR)
        answer = client.recv(4096)
    assert statuses(answer) == [400] and b"ends before the request" in answer, answer
    expect(server, 413, post(b"", Content_Length=2**20 + 1))
    expect(server, 413, head(2**20 + 1) + b" " * (2**20 + 1))
    print("lengths")


def check_continue(server):
    """A client that asks first is told once, or refused at once."""
    text = post(SHORT, Expect="100-continue")
    start, body = text.split(b"\r\n\r\n", 1)
    with server.socket() as client:
        client.sendall(start + b"\r\n\r\n")
        assert client.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(body[:5])
        client.sendall(body[5:])
        assert statuses(client.recv(4096)) == [200]
        client.sendall(text)  # without waiting
        assert statuses(client.recv(4096)) == [200]
    expect(server, 413, post(b"", Expect="100-continue", Content_Length=2**20 + 1))
    print("continue")


def check_head(server):
    """HEAD is GET without the body, and the connection goes on."""
    connection = server.connect()
    for path in ("/", "/health", "/v1/models", "/nowhere", "/v1/completions"):
        told = []
        for method in ("HEAD", "GET"):
            connection.request(method, path)
            response = connection.getresponse()
            body = response.read()
            told.append((response.status, response.headers["Content-Length"]))
        assert told[0] == told[1] and int(told[1][1]) == len(body), (path, told)
    print("head")


def check_pipelined(server):
    """Requests that do not wait for answers get them in their order."""
    bodies = [SHORT | {"prompt": [i], "max_tokens": 1 + i % 7, "temperature": 0} for i in range(30)]
    alone = [server.ask("/v1/completions", body)[1]["choices"] for body in bodies]
    texts = [post(body) + OK + b"\r\n" for body in bodies]
    answer = raw(server, *texts, b"GET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert statuses(answer) == [200] * 60 + [404], statuses(answer)
    found = re.findall(rb"^\{.*\}$", answer, re.MULTILINE)
    assert [json.loads(text)["choices"] for text in found[:-1:2]] == alone
    print("pipelined")


def check_half_closed(server):
    """A client that only says no more gets its answer, also from the queue."""
    most = SHORT | {"max_tokens": 400, "temperature": 0}
    alone = server.ask("/v1/completions", most)[1]["choices"][0]["token_ids"]
    clients = []
    for i in range(12):
        clients.append(server.socket())
        clients[-1].sendall(post(most | {"stream": i % 2 == 1}))
        clients[-1].shutdown(socket.SHUT_WR)
    for client in clients:
        answer = b""
        while piece := client.recv(65536):
            answer += piece
        assert statuses(answer)[-1] == 200, answer
        found = re.findall(r'"token_ids":\[([0-9,]*)\]', answer.decode())
        assert [int(token) for ids in found for token in ids.split(",") if ids] == alone, answer
        client.close()
    with server.socket() as client:
        client.shutdown(socket.SHUT_WR)  # and has said nothing
        assert client.recv(1) == b""
    print("half closed")


def check_bodies(server):
    """Bytes that are not UTF-8, or not JSON."""
    bad = (b"\xff", b"\xc0\x80", b"\xe2\x82", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\x80")
    for text in bad:
        for body in (b'{"prompt": "%s"}' % text, b'{"%s": 1}' % text, text):
            status, answer = server.ask("/v1/completions", body)
            assert status == 400, (body, answer)
            is_string = body != text
            message = answer["error"]["message"]
            assert message.startswith("the body is not valid UTF-8") or not is_string, message
    for body in (
        b"",
        b"\0",
        b'{"prompt": [1]}\0',
        b'{"prompt": [1]}\0}',
        b'{"prompt": "a\0b"}',
        b'{"prompt": "\\ud800"}',
        b'{"prompt": [1], "temperature": NaN}',
        b'{"prompt": [1e999]}',
        b'{"prompt": [1], }',
        b"{'prompt': [1]}",
        '{"prompt": [1]}'.encode("utf-16"),
        b'{"a":' * 32 + b"1" + b"}" * 32,
    ):
        status, answer = server.ask("/v1/completions", body)
        assert status == 400, (body, answer)
        assert answer["error"]["type"] == "invalid_request_error"
    # A mark of the byte order is no part of JSON; most who read it overlook it.
    assert server.ask("/v1/completions", b"\xef\xbb\xbf" + json.dumps(SHORT).encode())[0] == 200
    print("bodies")


def check_slow(package):
    """Clients that hold all connections with single bytes keep them no longer than
    any request may take."""
    with Server(package, "--connections=8", "--request-timeout=1") as server:
        slow = [server.socket() for _ in range(8)]
        start = time.monotonic()
        for client in slow:
            client.sendall(b"GET /health HTTP/1.1\r\n")
        turned_away = raw(server, OK + b"\r\n")
        assert statuses(turned_away) == [503] and b"Retry-After: 1" in turned_away, turned_away
        answers = [b""] * len(slow)
        while not all(answers) and time.monotonic() < start + 10:
            for i, client in enumerate(slow):
                if not answers[i]:
                    client.sendall(b"X: a\r\n")
            time.sleep(0.05)
            for i, client in enumerate(slow):
                client.setblocking(False)
                try:
                    answers[i] = answers[i] or client.recv(4096)
                except BlockingIOError:
                    pass
        assert all(statuses(answer) == [408] for answer in answers), answers
        for client in slow:
            client.close()
        server.until(lambda m: m["kvrm_connections"] == 1)
        server.end()
    print("slow")


def visit(server, way):
    """A connection that is short, and ends in one of five ways."""
    with server.socket() as client:
        if way == 0:
            return
        if way == 1:
            return reset(client)
        client.sendall(OK if way == 2 else OK + b"\r\n" if way == 3 else post(SHORT))
        if way == 2:
            return reset(client)
        assert statuses(client.recv(4096)) == [200]


def check_many(server, count=10_000, at_once=8):
    """Ten thousand short connections leave nothing behind."""

    def visits(number):
        for i in range(number, count // 2, at_once):
            visit(server, i % 5)

    def round_of_visits():
        threads = [threading.Thread(target=visits, args=(i,)) for i in range(at_once)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        server.until(lambda m: m["kvrm_connections"] == 1)
        server.until_free()
        return owned(server)

    threads, files, kibibytes = round_of_visits()
    later = round_of_visits()
    # The connection before the last may not have been joined yet.
    assert abs(later[0] - threads) <= 2 and abs(later[1] - files) <= 2, (threads, files, later)
    assert later[2] - kibibytes < 2048, (kibibytes, later)
    print("many")


def main():
    (package,) = sys.argv[1:]
    with Server(package, "--request-timeout=0.5") as server:
        check_long_headers(server)
        check_targets(server)
        check_fields(server)
        check_lengths(server)
        check_continue(server)
        check_head(server)
        check_bodies(server)
        server.end()
    with Server(package) as server:
        check_pipelined(server)
        check_half_closed(server)
        check_many(server)
        server.end()
    check_slow(package)


main()
