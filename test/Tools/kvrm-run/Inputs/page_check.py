# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Chats on the page of `kvrm-run serve` in Chromium, without a window.

    page_check.py MODEL

MODEL is the package of the endless model of make_chat.py, with 2 slots.
"""

import json
import os
import shutil
import sys

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from make_chat import MARKUP
from serving import Server, head

ANSWER = "hi" + MARKUP  # with --max-tokens 3
HTML = "<script>document.title='taken'</script><b>bold</b> &amp; done"


class Page:
    """The page in a browser, as somebody sees and uses it."""

    def __init__(self):
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        for argument in (
            "--headless=new",
            "--no-sandbox",  # root has none
            "--disable-dev-shm-usage",
            "--window-size=1100,640",
            "--user-data-dir=" + os.path.abspath("profile"),
        ):
            options.add_argument(argument)
        service = webdriver.ChromeService(shutil.which("chromedriver"))
        self.browser = webdriver.Chrome(options=options, service=service)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.browser.quit()

    def open(self, server):
        self.browser.get(f"http://127.0.0.1:{server.port}/")

    def find(self, name):
        return self.browser.find_element(By.ID, name)

    def run(self, script, *arguments):
        return self.browser.execute_script(script, *arguments)

    def until(self, condition, seconds=20):
        WebDriverWait(self.browser, seconds, 0.05).until(
            lambda _: condition(), message=f"{self.turns()} {self.figures()}"
        )

    def turns(self):
        """Who said it, and what."""
        return self.run(
            "return Array.from(document.querySelectorAll('.turn'),"
            " (turn) => [turn.className.slice(5), turn.textContent])"
        )

    def figures(self):
        """What is beside the chat, by name."""
        pairs = self.run(
            "return Array.from(document.querySelectorAll('dt'),"
            " (name) => [name.textContent, name.nextSibling.textContent])"
        )
        return dict(pairs, Slots=self.find("slots").text, Pages=self.find("pages").text)

    def say(self, text):
        self.find("text").send_keys(text, Keys.ENTER)

    def is_answering(self):
        return self.find("send").text == "Stop"

    def chat(self, text):
        """Says something and waits until it is answered. Returns new turns."""
        before = len(self.turns())
        self.say(text)
        self.until(lambda: len(self.turns()) > before and not self.is_answering())
        return self.turns()[before:]

    def complaints(self):
        """What the browser has had to say of the page, and not told yet."""
        return self.browser.get_log("browser")


def prompt_tokens(*turns):
    """Of a conversation in chatml, in which bytes and marks are tokens."""
    return sum(len(f"+{role}\n{text}+\n".encode()) for role, text in turns) + len("+assistant\n")


def prefilled(server):
    return server.metrics()['kvrm_tokens_total{kind="prompt"}']


def check_chat(page, server):
    """Markup is text, whoever wrote it, and a conversation is sent whole."""
    page.open(server)
    page.until(lambda: page.browser.title == "says-hi")
    assert page.find("model").text == "says-hi"
    page.until(lambda: page.figures()["Slots"] == "0 / 2")
    assert page.figures()["First token, median"] == "–"
    first = [["user", HTML], ["assistant", ANSWER]]
    assert page.chat(HTML) == first, page.turns()
    assert prefilled(server) == prompt_tokens(first[0]), prefilled(server)
    before = prefilled(server)
    second = ["user", "Grüße, 世界"]
    assert page.chat(second[1]) == [second, first[1]], page.turns()
    assert prefilled(server) - before == prompt_tokens(*first, second)
    assert page.run("return document.querySelectorAll('.turn *').length") == 0
    assert page.browser.title == "says-hi"
    page.until(lambda: page.figures()["First token, median"].startswith("≤ "))
    page.until(lambda: page.figures()["Next token, median"].startswith("≤ "))
    assert page.complaints() == []
    print("chat")


def check_keys(page, server):
    """What sends a message, and what does not."""
    page.open(server)
    box = page.find("text")
    box.send_keys("  ", Keys.ENTER)
    assert page.turns() == []
    box.clear()
    box.send_keys("a", Keys.SHIFT + Keys.ENTER)
    box.send_keys("b")
    # Enter also ends what an input method composes.
    page.run(
        "arguments[0].dispatchEvent(new KeyboardEvent('keydown',"
        " {key: 'Enter', isComposing: true, bubbles: true, cancelable: true}))",
        box,
    )
    assert page.turns() == [] and box.get_property("value") == "a\nb"
    page.find("send").click()
    page.until(lambda: len(page.turns()) == 2 and not page.is_answering())
    assert page.turns()[0] == ["user", "a\nb"]
    print("keys")


def check_reload(page, server):
    """A reload starts another conversation."""
    before = prefilled(server)
    page.browser.refresh()
    assert page.turns() == []
    page.until(lambda: page.figures()["Slots"] == "0 / 2")
    said = ["user", "again"]
    assert page.chat("again") == [said, ["assistant", ANSWER]]
    assert prefilled(server) - before == prompt_tokens(said)
    print("reload")


def check_narrow(page, server):
    """On a telephone the figures are below, and nothing is cut off."""
    page.browser.set_window_size(500, 800)
    bottom, top, width, room = page.run(
        "const box = (name) => document.querySelector(name).getBoundingClientRect();"
        "const root = document.documentElement;"
        "return [box('main').bottom, box('aside').top, root.scrollWidth, root.clientWidth]"
    )
    assert bottom <= top and width <= room, (bottom, top, width, room)
    page.browser.set_window_size(1100, 640)
    print("narrow")


def check_stop(page, server):
    """An answer grows as it comes, figures move with it, and it can be stopped."""
    page.open(server)
    page.say("go on")
    shown = []
    for _ in range(3):
        page.until(lambda: len(page.turns()) == 2 and page.turns()[1][1] not in ["", *shown])
        assert page.is_answering()
        shown.append(page.turns()[1][1])
    assert all(later.startswith(earlier) for earlier, later in zip(shown, shown[1:])), shown
    assert (ANSWER + "\n").startswith(shown[0][: len(ANSWER) + 1])
    page.until(lambda: page.figures()["Slots"] == "1 / 2")
    page.until(lambda: page.figures()["Pages"].split(" / ")[0] != "0")
    page.until(lambda: page.figures()["Tokens a second"] not in ("–", "0"))
    page.find("send").click()
    page.until(lambda: not page.is_answering())
    turns = page.turns()
    server.until(lambda m: m['kvrm_requests_total{outcome="client_gone"}'] == 1)
    server.until_free()
    page.until(lambda: page.figures()["Slots"] == "0 / 2")
    assert page.turns() == turns and len(turns) == 2, turns
    print("stop")


def check_full(page, server):
    """A refusal is shown. What was not answered is not of the conversation."""
    page.open(server)
    body = json.dumps({"prompt": "\n", "max_tokens": 9000, "stream": True}).encode()
    others = []
    for running, waiting in ((1, 0), (2, 0), (2, 1)):
        others.append(server.socket())
        others[-1].sendall(head(len(body)) + body)
        server.until(
            lambda m: (m["kvrm_slots_running"], m["kvrm_queue_length"]) == (running, waiting)
        )
    refused = page.chat("anybody there?")
    assert refused == [
        ["user", "anybody there?"],
        ["error", "queue full: 1 requests wait, the limit is 1"],
    ], refused
    page.until(lambda: page.figures()["Queue"] == "1")
    for other in others:
        other.close()
    server.until_free()
    before = prefilled(server)
    page.say("and now?")
    page.until(lambda: page.turns()[-1][0] == "assistant" and page.turns()[-1][1] != "")
    assert prefilled(server) - before == prompt_tokens(["user", "and now?"])
    page.find("send").click()
    page.until(lambda: not page.is_answering())
    server.until_free()
    print("full")


def check_server_gone(page, server, restart):
    """Whoever chats is told, and goes on when a server is there again."""
    page.open(server)
    page.say("tell me")
    page.until(lambda: len(page.turns()) == 2 and page.turns()[1][1] != "")
    server.process.kill()
    page.until(lambda: len(page.turns()) == 3 and not page.is_answering())
    assert page.turns()[2] == ["error", "network error"], page.turns()[2]
    page.until(lambda: page.find("figures").text == "The server does not answer.")
    server.process.wait()
    gone = page.chat("still there?")
    assert gone == [["user", "still there?"], ["error", "Failed to fetch"]], gone
    with restart(server.port) as server:
        page.until(lambda: page.figures().get("Queue") == "0")
        page.browser.refresh()
        assert page.chat("and now?")[1] == ["assistant", ANSWER]
        server.end()
    print("server gone")


def main():
    (model,) = sys.argv[1:]

    def start(*options, **arguments):
        return Server(model, "--model-name", "says-hi", *options, **arguments)

    with Page() as page:
        with start("--max-tokens", "3") as server:
            check_chat(page, server)
            check_keys(page, server)
            check_reload(page, server)
            check_narrow(page, server)
            server.end()
        with start("--queue-limit", "1") as server:
            check_stop(page, server)
            check_full(page, server)
            check_server_gone(page, server, lambda port: start("--max-tokens", "3", port=port))


main()
