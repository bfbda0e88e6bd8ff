#!/usr/bin/env python3
# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Judges kvrm's chat templates by Jinja, set up as transformers has it.

Templates in the manner of well-known models, templates of single constructs, and
random ones go through both, with conversations that are random too. Texts have to
be equal byte for byte; what Jinja refuses, kvrm has to refuse. What kvrm alone
refuses has to say so ("not done here"), and is counted. Bytes of messages have to
be known as such.

    chat_templates.py --render kvrm-render-template [--seconds 5]
    chat_templates.py --render kvrm-render-template [--transformers] TEMPLATE...

TEMPLATE is a file of somebody else's, to be judged the same way, or by transformers
itself. One that kvrm refuses, or that takes no conversation without tools, is named.
"""

import argparse
import datetime
import json
import os
import random
import subprocess
import sys
import time

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

import chat_template_texts as texts

NOW = time.localtime(0)


class Generation(Extension):
    """transformers' mark of what it trains on."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        call = self.call_method("_same")
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _same(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.TemplateError(message)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def environment(optimized=True):
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[Generation, loopcontrols],
        optimized=optimized,
    )
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda form: time.strftime(form, NOW)
    return env


class Renderer:
    """kvrm's, as a process that answers line by line."""

    def __init__(self, path):
        self.process = subprocess.Popen(
            [path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def render(self, template, variables):
        request = {"template": template, "variables": variables}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"kvrm-render-template died of {json.dumps(request)}")
        return json.loads(answer)


def may_refuse(template, said):
    """What kvrm says that it does not do; and what Jinja's filters that compute
    as they go find out later, or never."""
    return "not done here" in said or any(
        name in template for name in ("|map", "|select", "|items")
    )


class Refused(Exception):
    """What kvrm refuses of a template that is somebody else's."""


class Then(datetime.datetime):
    """A clock that stands."""

    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(0, tz)


def by_transformers(template, values):
    """Rendered by transformers itself."""
    # Only by hand, and slow to import.
    from transformers.utils import chat_template_utils

    chat_template_utils.datetime = Then
    values = dict(values)
    conversations = [values.pop("messages")]
    return chat_template_utils.render_jinja_template(
        conversations, chat_template=template, **values
    )[0][0]


class Judge:
    def __init__(self, renderer, is_by_transformers=False, are_others=False):
        self.envs = [environment(), environment(optimized=False)]
        self.renderer = renderer
        self.is_by_transformers = is_by_transformers
        self.are_others = are_others
        self.equal = self.both_refuse = self.refused = 0
        self.compiled = {}

    def expected(self, template, variables, is_random):
        if self.is_by_transformers:
            return by_transformers(template, variables)
        # The optimizer computes what is constant by rules of its own.
        env = self.envs[is_random]
        if is_random:
            return env.from_string(template).render(**variables)
        if template not in self.compiled:
            self.compiled[template] = env.from_string(template)
        return self.compiled[template].render(**variables)

    def check(self, template, variables, is_random=False):
        try:
            expected, error = self.expected(template, variables, is_random), None
        except Exception as exception:  # whatever Python says no with
            expected, error = None, exception
        answer = self.renderer.render(template, variables)
        said = answer.get("error")
        if said is not None and error is not None:
            self.both_refuse += 1
        elif said is not None and is_random and may_refuse(template, said):
            self.refused += 1
        elif answer.get("text") == expected and error is None:
            self.equal += 1
            self.check_owners(answer)
        elif said is not None and self.are_others:
            raise Refused(said)
        else:
            sys.exit(
                f"different:\n{template}\n{json.dumps(variables)}\n"
                f"jinja: {error or ''} {expected!r}\nkvrm:  {answer}"
            )

    def check_owners(self, answer):
        """What messages have alone is known as theirs: letters that no template
        here has."""
        data = answer["text"].encode()
        for mark in (b"\xc3\x9f", b"\xe4\xb8\xad"):
            at = data.find(mark)
            while at >= 0:
                if set(answer["owners"][at : at + len(mark)]) != {"m"}:
                    sys.exit(f"bytes of a message are the template's: {answer}")
                at = data.find(mark, at + 1)


PIECES = [
    "Hello", " ", "  ", "\n", "\n\n", "<|im_end|>", "<|eot_id|>", "</s>", "[INST]",
    "{{ x }}", "{% if %}", "ß", "中文", "😀", "\t", "tab", '"', "'", "\\", "\\n",
    "<think>", "</think>", "a", "/no_think", "A B", "\u3000", "\r\n", "\x01", "e\u0301",
    "### System", "1", "&<>",
]  # fmt: skip


def words(chance):
    return "".join(chance.choice(PIECES) for _ in range(chance.randrange(6)))


def conversation(chance):
    """One that most templates take, or one with roles in any order."""
    messages = []
    if chance.random() < 0.5:
        messages.append({"role": "system", "content": words(chance)})
    if chance.random() < 0.85:
        for _ in range(chance.randrange(3)):
            messages.append({"role": "user", "content": words(chance)})
            messages.append({"role": "assistant", "content": words(chance)})
        messages.append({"role": "user", "content": words(chance)})
    else:
        roles = ["user", "assistant", "system", "tool", "User"]
        for _ in range(chance.randrange(5)):
            messages.append({"role": chance.choice(roles), "content": words(chance)})
    return messages


def variables(chance):
    values = {
        "messages": conversation(chance),
        "bos_token": "<s>",
        "eos_token": "</s>",
        "add_generation_prompt": chance.random() < 0.8,
        "tools": None,
        "documents": None,
    }
    if chance.random() < 0.2:
        del values["bos_token"]
    return values


def check_random(judge, chance):
    """A random template, of which kvrm may refuse what it says it does."""
    values = variables(chance)
    values["n"] = chance.choice([0, 1, -3, 7, 2.5, True, 1e20, 123])
    values["s"] = words(chance)
    values["d"] = {"a": 1, "b": [1, {"c": "x"}], "items": 2, "role": "user"}
    judge.check(texts.RandomTemplate(chance).text(), values, is_random=True)


def judge_others(judge, chance, paths):
    for path in paths:
        with open(path, encoding="utf-8", newline="") as file:
            template = file.read()
        judge.equal = 0
        try:
            for _ in range(200):
                judge.check(template, variables(chance))
            outcome = f"{judge.equal} of 200 equal, the others refused by both"
        except Refused as refused:
            outcome = f"refused: {refused}"
        print(f"{os.path.basename(path)}: {outcome}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("templates", nargs="*")
    parser.add_argument("--render", default="kvrm-render-template")
    parser.add_argument("--transformers", action="store_true")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--seed", type=int, default=None)
    args = parser.parse_args()
    seed = random.randrange(2**32) if args.seed is None else args.seed
    chance = random.Random(seed)
    print("seed", seed)
    judge = Judge(Renderer(args.render), args.transformers, bool(args.templates))
    if args.templates:
        judge_others(judge, chance, args.templates)
        return
    for name, template in texts.MODELS.items():
        before = judge.equal
        for _ in range(200):
            judge.check(template, variables(chance))
        if judge.equal - before < 20:
            sys.exit(f"{name}: hardly a conversation is taken")
    print(f"{len(texts.MODELS)} models: {judge.equal} equal, {judge.both_refuse} refused")
    for template in texts.CONSTRUCTS:
        for _ in range(10):
            judge.check(template, variables(chance))
    for template in texts.REFUSED:
        if "error" not in judge.renderer.render(template, variables(chance)):
            sys.exit(f"taken: {template}")
    print(f"{len(texts.CONSTRUCTS)} constructs")
    judge.equal = judge.both_refuse = 0
    end = time.monotonic() + args.seconds
    while time.monotonic() < end:
        check_random(judge, chance)
    print(
        f"random: {judge.equal} equal, {judge.both_refuse} refused by both, "
        f"{judge.refused} by kvrm"
    )
    if judge.equal < 3 * judge.refused:
        sys.exit("most is refused")


main()
