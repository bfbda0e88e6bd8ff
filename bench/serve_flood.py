#!/usr/bin/env python3
"""Floods `kvrm-run serve` with more than it can serve, and checks every answer.

Questions are asked one by one first. Then the server's saturation is measured: what
it serves when each slot has a client and one more waits for it. Then questions come
at --load times that rate, as streams, whole, and streams that are left in the middle:
every answer has to be the one that the question had alone, or a refusal, and the
server's counts have to be the clients'. In the end the server gets SIGTERM under the
same load: what it has accepted it has to answer. The package has the schedule rows,
with which an answer does not depend on its neighbours.
"""

import argparse
import collections
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

from common import machine, progress, run, work_folder

WORDS = "sea fox bridge winter clock garden letter river engine bread moon paper horse lamp stone song".split()


class Server:
    """A server of ours, and what it says of itself."""

    def __init__(self, args, package):
        command = [os.path.join(args.build, "bin/kvrm-run"), "serve", package, "--port=0"]
        command += [f"--queue-limit={args.queue_limit}", f"--threads={args.threads}"]
        command += [f"--drain-timeout={args.drain_timeout}", "--model-name=flooded"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line:
            sys.exit("kvrm-run serve does not start")
        self.port = int(line.rsplit(":", 1)[1])

    def connect(self, timeout=600):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def metrics(self):
        connection = self.connect()
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        return {
            name: float(value)
            for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")
        }

    def outcomes(self):
        """Requests by how the server says that they ended."""
        mark = 'kvrm_requests_total{outcome="'
        return {
            name[len(mark) : -2]: int(value)
            for name, value in self.metrics().items()
            if name.startswith(mark)
        }

    def until_idle(self):
        while (values := self.metrics())["kvrm_slots_running"] + values["kvrm_queue_length"] > 0:
            time.sleep(0.05)
        # A client may have its answer before it is counted.
        while self.metrics()["kvrm_connections"] > 1:
            time.sleep(0.05)


# ===-----------------------------------------------------------------------===#
# Questions and answers
# ===-----------------------------------------------------------------------===#


def questions(args, generator):
    """(path, body) of requests of all kinds, whose answers are always the same."""
    made = []
    for i in range(args.questions):
        words = " ".join(generator.choice(WORDS) for _ in range(generator.choice((2, 8, 30))))
        sampling = {
            "max_tokens": generator.randint(4, args.max_tokens),
            "temperature": generator.choice((0, 0.7, 1.2)),
            "top_p": generator.choice((1, 0.9)),
            "seed": generator.getrandbits(63),
            "return_token_ids": True,
        }
        if i % 4 == 0:
            sampling["stop"] = [" the", "."]
        if i % 2:
            messages = [{"role": "user", "content": f"Write about: {words}"}]
            made.append(("/v1/chat/completions", sampling | {"messages": messages}))
        else:
            made.append(("/v1/completions", sampling | {"prompt": f"The {words} was"}))
    return made


Answer = collections.namedtuple("Answer", "text tokens finish")


def answer_of(choices):
    """Of an answer's one choice, or of all those of a stream."""
    texts, tokens, finish = [], [], None
    for choice in choices:
        content = choice.get("message") or choice.get("delta") or {}
        texts.append(choice.get("text") or content.get("content") or "")
        tokens += choice["token_ids"]
        finish = finish or choice["finish_reason"]
    return Answer("".join(texts), tokens, finish)


class Asked:
    """A question while it is answered, and how that ended."""

    def __init__(self, server, question, way, leave_after=0):
        self.server, self.question, self.way = server, question, way
        self.leave_after = leave_after  # events, of a stream that is left
        self.times = []  # of the start and of each token
        self.has_begun = False  # the answer, that is
        self.verdict = "?"
        self.identity = None
        self.choices = []

    def run(self, expected):
        connection = self.server.connect()
        try:
            self.verdict = self.ask(connection, expected)
        except ConnectionRefusedError:
            self.verdict = "closed"
        except (ConnectionError, http.client.HTTPException, TimeoutError):
            # Without a byte of an answer the server may not have seen the request.
            self.verdict = "cut" if self.has_begun else "closed"
        finally:
            connection.close()

    def ask(self, connection, expected):
        path, body = self.question
        self.times.append(time.monotonic())
        data = json.dumps(body | {"stream": self.way != "whole"})
        connection.request("POST", path, data, {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            text = json.loads(response.read())
            return {429: "full", 503: "draining"}.get(response.status, f"{response.status} {text}")
        self.has_begun = True
        if self.way == "whole":
            answer = json.loads(response.read())
            self.times.append(time.monotonic())
            self.identity, self.choices = answer["id"], answer["choices"]
            return "answered" if answer_of(self.choices) == expected else "wrong"
        return self.read_stream(response, expected)

    def read_stream(self, response, expected):
        for line in response:
            if line == b"\n":
                continue
            data = line.decode().removeprefix("data: ").rstrip("\n")
            if data == "[DONE]":
                return "answered" if answer_of(self.choices) == expected else "wrong"
            event = json.loads(data)
            if "error" in event:
                return "cut"
            if (self.identity or event["id"]) != event["id"]:
                return "mixed"
            self.identity = event["id"]
            self.choices += event["choices"]
            if event["choices"][0]["token_ids"]:
                self.times.append(time.monotonic())
            if self.way == "left" and len(self.times) > self.leave_after:
                return "left" if self.is_start_of(expected) else "wrong"
        return "cut"

    def is_start_of(self, expected):
        text, tokens, _ = answer_of(self.choices)
        return expected.text.startswith(text) and expected.tokens[: len(tokens)] == tokens


# ===-----------------------------------------------------------------------===#
# Load
# ===-----------------------------------------------------------------------===#


class Load:
    """Questions that come at random times, whether others are answered or not."""

    def __init__(self, server, asked_alone, rate, seed):
        self.server, self.asked_alone, self.rate = server, asked_alone, rate
        self.generator = random.Random(seed)
        self.asked = []
        self.threads = []

    def start_one(self):
        question, expected = self.generator.choice(self.asked_alone)
        way = self.generator.choice(("whole", "stream", "stream", "left"))
        one = Asked(self.server, question, way, self.generator.randint(1, 6))
        thread = threading.Thread(target=one.run, args=(expected,), daemon=True)
        self.asked.append(one)
        self.threads.append(thread)
        thread.start()

    def run(self, seconds, each_second=lambda: None):
        end = time.monotonic() + seconds
        next_second = time.monotonic()
        due = time.monotonic()
        while (now := time.monotonic()) < end:
            if now >= next_second:
                each_second()
                next_second += 1
            while due <= time.monotonic():
                self.start_one()
                due += self.generator.expovariate(self.rate)
            time.sleep(max(0.0, min(due, next_second, end) - time.monotonic()))

    def join(self):
        for thread in self.threads:
            thread.join()

    def verdicts(self):
        return dict(collections.Counter(one.verdict for one in self.asked))


def saturation(server, asked_alone, args):
    """Requests and tokens a second with two clients a slot, and those wrong."""
    end = time.monotonic() + args.saturation_seconds
    done, wrong = [], []

    def client(number):
        generator = random.Random(number)
        while time.monotonic() < end:
            question, expected = generator.choice(asked_alone)
            one = Asked(server, question, "whole")
            one.run(expected)
            (done if one.verdict == "answered" else wrong).append(one.verdict)

    before = server.metrics()
    start = time.monotonic()
    threads = [threading.Thread(target=client, args=(i,)) for i in range(2 * args.slots)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - start
    after = server.metrics()
    kinds = [f'kvrm_tokens_total{{kind="{kind}"}}' for kind in ("prompt", "decoded")]
    prompt, decoded = (after[kind] - before[kind] for kind in kinds)
    return {
        "requests_per_s": len(done) / seconds,
        "prompt_tokens_per_s": prompt / seconds,
        "decoded_tokens_per_s": decoded / seconds,
        "not_as_alone": wrong,
    }


# ===-----------------------------------------------------------------------===#
# What is reported
# ===-----------------------------------------------------------------------===#


def percentiles(values):
    """In milliseconds."""
    values = sorted(values)
    pick = lambda share: round(1000 * values[min(int(share * len(values)), len(values) - 1)], 1)
    return {f"p{100 * share:g}": pick(share) for share in (0.5, 0.9, 0.99)} | {"max": pick(1)} if values else {}


def latencies(asked):
    """Of streams that were read to their end."""
    streams = [one.times for one in asked if one.way == "stream" and one.verdict == "answered"]
    return {
        "first_token_ms": percentiles([times[1] - times[0] for times in streams if times[1:]]),
        "inter_token_ms": percentiles(
            [later - earlier for times in streams for earlier, later in zip(times[1:], times[2:])]
        ),
    }


def check_flood(report, before, after, resident, args):
    """What is not as it has to be, in words."""
    verdicts = report["verdicts"]
    counts = {name: after[name] - before[name] for name in after}
    report["server_counts"] = counts
    failures = []

    def check(holds, text):
        if not holds:
            failures.append(text)

    check(set(verdicts) <= {"answered", "left", "full"}, f"requests ended as {verdicts}")
    check(verdicts.get("full", 0) > 0, "nothing was refused: that was no flood")
    check(counts["queue_full"] == verdicts.get("full", 0), "refusals are not the server's count")
    served = sum(counts[name] for name in ("stop", "length", "client_gone"))
    taken = verdicts.get("answered", 0) + verdicts.get("left", 0)
    check(served == taken, f"{served} were served, {taken} were answered or left")
    check(counts["client_gone"] <= verdicts.get("left", 0), "clients went that did not")
    check(report["identities"] == taken, "two answers have one id")
    third = len(resident) // 3
    growth = max(resident[-third:]) - max(resident[:third]) if third else 0
    report["resident_growth_bytes"] = growth
    check(growth <= args.growth * 2**20, f"memory grew by {growth / 2**20:.1f} MiB")
    return failures


def flood(server, asked_alone, rate, args):
    load = Load(server, asked_alone, rate, args.seed)
    samples = []
    before = server.outcomes()
    load.run(args.seconds, lambda: samples.append(server.metrics()))
    load.join()
    server.until_idle()
    resident = [int(sample["process_resident_memory_bytes"]) for sample in samples]
    report = {
        "offered_per_s": len(load.asked) / args.seconds,
        "verdicts": load.verdicts(),
        "ways": dict(collections.Counter(one.way for one in load.asked)),
        "identities": len({one.identity for one in load.asked} - {None}),
        "resident_mib": [round(value / 2**20, 1) for value in resident],
        "queue_length": [int(sample["kvrm_queue_length"]) for sample in samples],
        **latencies(load.asked),
    }
    report["failures"] = check_flood(report, before, server.outcomes(), resident, args)
    return report


def drain(server, asked_alone, rate, args):
    """SIGTERM under load: what was accepted is answered, and the server ends."""
    load = Load(server, asked_alone, rate, args.seed + 1)
    load.run(args.drain_after)
    values = server.metrics()
    sent = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    load.run(2)
    load.join()
    status = server.process.wait()
    earlier = [one for one in load.asked if one.times and one.times[0] < sent]
    later = [one for one in load.asked if one not in earlier]
    count = lambda some: dict(collections.Counter(one.verdict for one in some))
    answered_after = sum(one.verdict == "answered" and one.times[-1] > sent for one in earlier)
    report = {
        "running": int(values["kvrm_slots_running"]),
        "waiting": int(values["kvrm_queue_length"]),
        "before_signal": count(earlier),
        "of_these_answered_after_it": answered_after,
        "after_signal": count(later),
        "status": status,
        "failures": [],
    }
    if status != 0:
        report["failures"].append(f"the server ended with status {status}")
    if not set(count(earlier)) <= {"answered", "left", "full", "draining"}:
        report["failures"].append(f"requests before SIGTERM ended as {count(earlier)}")
    if not set(count(later)) <= {"draining", "closed"}:
        report["failures"].append(f"requests after SIGTERM ended as {count(later)}")
    if not answered_after:
        report["failures"].append("nothing ran when SIGTERM came")
    return report


def measure(args, work):
    package = os.path.join(work, "flooded.kvrm")
    progress("compiling")
    run(
        os.path.join(args.build, "bin/kvrmc"), args.model, "--quiet", "-o", package, "--schedule=rows",
        f"--slots={args.slots}", f"--capacity={args.capacity}",
    )  # fmt: skip
    server = Server(args, package)
    try:
        progress("asking alone")
        asked_alone = []
        for path, body in questions(args, random.Random(args.seed)):
            connection = server.connect()
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            answer = json.loads(connection.getresponse().read())
            if "choices" not in answer:
                sys.exit(f"{path}: {answer}")
            asked_alone.append(((path, body), answer_of(answer["choices"])))
        progress("measuring saturation")
        saturated = saturation(server, asked_alone, args)
        rate = args.load * saturated["requests_per_s"]
        progress(f"flooding with {rate:.1f} requests a second for {args.seconds:g} s")
        flooded = flood(server, asked_alone, rate, args)
        progress("draining")
        drained = drain(server, asked_alone, rate, args)
    finally:
        server.process.kill()
    return {
        "model": os.path.basename(args.model),
        "machine": machine(),
        "slots": args.slots,
        "queue_limit": args.queue_limit,
        "load": args.load,
        "seconds": args.seconds,
        "seed": args.seed,
        "saturation": saturated,
        "flood": flooded,
        "drain": drained,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="GGUF model with a chat template")
    parser.add_argument("--build", default="build", help="build folder of kvrm")
    parser.add_argument("--load", type=float, default=4, help="times saturation")
    parser.add_argument("--seconds", type=float, default=60, help="of the flood")
    parser.add_argument("--saturation-seconds", type=float, default=15)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--capacity", type=int, default=256, help="tokens a request can have")
    parser.add_argument("--queue-limit", type=int, default=16)
    parser.add_argument("--questions", type=int, default=24, help="different ones")
    parser.add_argument("--max-tokens", type=int, default=40, help="most of an answer")
    parser.add_argument("--drain-after", type=float, default=5, help="seconds of load before SIGTERM")
    parser.add_argument("--drain-timeout", type=float, default=120)
    parser.add_argument("--growth", type=float, default=8, help="MiB that memory may grow by, first third to last")
    parser.add_argument("--threads", type=int, default=0, help="of the server, 0 = one a CPU")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", help="folder for the package, kept")
    args = parser.parse_args()
    with work_folder(args.work) as work:
        report = measure(args, work)
    print(json.dumps(report, indent=1))
    failures = report["flood"]["failures"] + report["drain"]["failures"] + report["saturation"]["not_as_alone"]
    for failure in failures:
        progress(f"serve_flood.py: {failure}")
    sys.exit(1 if failures else 0)


main()
