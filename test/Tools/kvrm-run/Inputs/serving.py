# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""A running `kvrm-run serve`, for the checks that ask it."""

import http.client
import json
import signal
import socket
import subprocess
import time


class Server:
    """A running server, at a port of its own unless one is named."""

    def __init__(self, package, *options, port=0):
        self.process = subprocess.Popen(
            ["kvrm-run", "serve", package, f"--port={port}", "--threads=1", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        line = self.process.stdout.readline()
        self.port = int(line.rsplit(":", 1)[1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def connect(self, timeout=20):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def socket(self):
        made = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def get(self, path):
        connection = self.connect()
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()

    def ask(self, path, body, connection=None):
        """The status and the JSON of an answer."""
        connection = connection or self.connect()
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("POST", path, data, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())

    def stream(self, path, body):
        """The events of a stream."""
        connection = self.connect()
        connection.request(
            "POST", path, json.dumps(dict(body, stream=True)), {"Content-Type": "application/json"}
        )
        response = connection.getresponse()
        assert response.status == 200, response.read()
        assert response.headers["Content-Type"] == "text/event-stream"
        events = response.read().decode().split("\n\n")
        assert events[-2:] == ["data: [DONE]", ""], events
        return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]

    def metrics(self):
        values = {}
        for line in self.get("/metrics")[1].splitlines():
            if not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                values[name] = float(value)
        return values

    def until(self, condition, seconds=10):
        """Waits until the metrics say so."""
        deadline = time.monotonic() + seconds
        while not condition(self.metrics()):
            assert time.monotonic() < deadline, self.metrics()
            time.sleep(0.02)

    def until_free(self):
        idle = ("kvrm_slots_running", "kvrm_queue_length", "kvrm_pages_used")
        self.until(lambda m: not any(m[name] for name in idle))

    def end(self, number=signal.SIGTERM, timeout=20):
        self.process.send_signal(number)
        assert self.process.wait(timeout) == 0, self.process.stderr.read()


def raw(server, *parts, pause=0.0):
    """Sends bytes and returns what comes until the server closes."""
    with server.socket() as client:
        for part in parts:
            client.sendall(part)
            time.sleep(pause)
        got = b""
        try:
            while piece := client.recv(65536):
                got += piece
        except ConnectionResetError:
            pass
        return got


def head(length, path=b"/v1/completions"):
    return (
        b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % (path, length)
    )


def reset(client):
    """Ends a connection without a good-bye."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
