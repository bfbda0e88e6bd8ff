# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Asks `kvrm-run serve` by OpenAI's own client.

    openai_check.py SYNTH TEXT

SYNTH is a package without a tokenizer and with 4 slots, TEXT the chatml model of
make_chat.py.
"""

import json
import signal
import sys
import threading

import openai

from serving import Server, head

CHAT = [{"role": "user", "content": "a"}]


def client_of(server, **settings):
    url = f"http://127.0.0.1:{server.port}/v1"
    return openai.OpenAI(base_url=url, api_key="none", max_retries=0, **settings)


def refused(kind, call, **arguments):
    """The error that a call ends with."""
    try:
        call(**arguments)
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def check_models(client):
    assert [model.id for model in client.models.list()] == ["org/says hi"]
    model = client.models.retrieve("org/says hi")
    assert (model.id, model.object, model.owned_by) == ("org/says hi", "model", "kvrm")
    refused(openai.NotFoundError, client.models.retrieve, model="another")
    print("models")


def check_chat(client):
    create = client.chat.completions.create
    answer = create(model="org/says hi", messages=CHAT, temperature=0)
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", "hi")
    assert (choice.finish_reason, choice.logprobs) == ("stop", None)
    usage = answer.usage
    assert usage.completion_tokens == 2, usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert answer.object == "chat.completion" and answer.model == "org/says hi"
    parts = [{"type": "text", "text": "a"}]
    again = create(model="org/says hi", messages=[{"role": "user", "content": parts}])
    assert again.usage.prompt_tokens == usage.prompt_tokens and again.id != answer.id
    cut = create(model="org/says hi", messages=CHAT, max_completion_tokens=1)
    assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == ("h", "length")
    stopped = create(model="org/says hi", messages=CHAT, stop="i")
    assert (stopped.choices[0].message.content, stopped.choices[0].finish_reason) == ("h", "stop")
    print("chat")


def check_chat_stream(client):
    create = client.chat.completions.create
    whole = create(model="org/says hi", messages=CHAT)
    options = {"include_usage": True}
    with create(
        model="org/says hi", messages=CHAT, stream=True, stream_options=options
    ) as stream:
        chunks = list(stream)
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    deltas = [chunk.choices[0].delta.content or "" for chunk in chunks[:-1]]
    assert "".join(deltas) == "hi", deltas
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    print("chat stream")


def check_completions(client):
    create = client.completions.create
    answer = create(model="org/says hi", prompt="a\n", max_tokens=2)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("hi", "length")
    on = {"ignore_eos": True}
    for stop, text in (("z\nh", "hi"), (["q", "iz"], "h"), (None, "hiz\nhiz")):
        body = dict(model="org/says hi", prompt="a\n", stop=stop, max_tokens=9, extra_body=on)
        assert create(**body).choices[0].text == text
        chunks = create(**body, stream=True)
        assert "".join(chunk.choices[0].text for chunk in chunks) == text
    print("completions")


def check_seed(client):
    """Equal seeds, equal answers; others, others."""

    def tokens(seed):
        answer = client.completions.create(
            model="synth",
            prompt=[1, 2, 3],
            seed=seed,
            max_tokens=20,
            temperature=1,
            extra_body={"ignore_eos": True, "return_token_ids": True},
        )
        assert answer.usage.completion_tokens == 20
        return answer.choices[0].token_ids

    one, two, other = tokens(5), tokens(5), tokens(6)
    assert one == two != other, (one, two, other)
    assert tokens(None) != tokens(None)
    print("seed")


def check_errors(client):
    """What is wrong is an exception, with the field that is to blame."""
    create = client.chat.completions.create
    ask = {"model": "org/says hi", "messages": CHAT}
    for fields, param, code in (
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"n": 2}, "n", "unsupported_parameter"),
        ({"tools": [{"type": "function"}]}, "tools", "unsupported_parameter"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"role": "user", "content": "a" * 97}]}, "messages", "context_length_exceeded"),
        ({"extra_body": {"temprature": 1}}, "temprature", "unknown_parameter"),
    ):
        error = refused(openai.BadRequestError, create, **(ask | fields))
        assert (error.param, error.code) == (param, code), error
        assert error.type == "invalid_request_error" and error.body["message"].startswith(param)
    error = refused(openai.NotFoundError, create, model="gpt-4", messages=CHAT)
    assert error.code == "model_not_found"
    refused(openai.NotFoundError, client.embeddings.create, model="org/says hi", input="a")
    print("errors")


def check_rate_limit(server, client):
    """A full queue is an error, which the client's own retries wait out."""
    # Longer than a busy machine may keep this process waiting.
    long = {"prompt": [1], "max_tokens": 60000, "stream": True, "ignore_eos": True}
    body = json.dumps(long).encode()
    others = []
    server.until_free()  # what ran before is not counted
    for running, waiting in ((1, 0), (2, 0), (3, 0), (4, 0), (4, 1)):
        others.append(server.socket())
        others[-1].sendall(head(len(body)) + body)
        server.until(
            lambda m: (m["kvrm_slots_running"], m["kvrm_queue_length"]) == (running, waiting)
        )
    ask = dict(model="synth", prompt=[1], max_tokens=3, extra_body={"ignore_eos": True})
    error = refused(openai.RateLimitError, client.completions.create, **ask)
    assert (error.type, error.code) == ("rate_limit_error", "queue_full"), error
    assert error.response.headers["Retry-After"] == "1"

    def leave():
        server.until(lambda m: m['kvrm_requests_total{outcome="queue_full"}'] >= 2)
        for other in others:
            other.close()

    leaving = threading.Thread(target=leave)
    leaving.start()
    patient = client.with_options(max_retries=5)
    assert patient.completions.create(**ask).usage.completion_tokens == 3
    leaving.join()
    print("rate limit")


def check_end(server, client):
    """A stream that is left frees its slot; a server that goes is an error."""
    ask = dict(
        model="synth", prompt=[1], max_tokens=9000, stream=True, extra_body={"ignore_eos": True}
    )
    with client.completions.create(**ask) as stream:
        next(iter(stream))
    server.until_free()
    stream = client.completions.create(**ask)
    next(iter(stream))
    server.process.send_signal(signal.SIGTERM)
    error = refused(openai.APIError, lambda: list(stream))
    assert error.code == "stopping" and error.message == "the server is stopping", error
    assert server.process.wait(20) == 0
    refused(openai.APIConnectionError, client.models.list)
    print("end")


def main():
    synth, text = sys.argv[1:]
    with Server(text, "--model-name", "org/says hi") as server:
        client = client_of(server)
        check_models(client)
        check_chat(client)
        check_chat_stream(client)
        check_completions(client)
        check_errors(client)
        server.end()
    with Server(synth, "--model-name=synth", "--queue-limit=1", "--drain-timeout=0") as server:
        client = client_of(server)
        check_seed(client)
        check_rate_limit(server, client)
        check_end(server, client)


main()
