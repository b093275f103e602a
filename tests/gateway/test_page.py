"""The page in a real browser: it chats, tokens come one by one with their cost, and it shows what each party sees."""

from __future__ import annotations

import http.client
import re
from pathlib import Path
from typing import Any

import pytest

from puma.gateway.endpoints.page import PARTS, built
from tests.gateway.browser import opened
from tests.gateway.conftest import Served, serving, until

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def test_the_page_is_one_file_under_a_strict_policy(served: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port)
    connection.request("GET", "/")
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    policy = answer.headers["content-security-policy"]
    assert text == built()[0]
    assert "default-src 'none'" in policy and "unsafe" not in policy and policy.count("sha256-") == 2
    assert not re.search(r"https?://|src=|href=|innerHTML|style=\"|onclick", text)
    assert all(len(part.read_text().splitlines()) <= 400 for part in PARTS.iterdir())


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_chat(scheme: str, browser: Any, served: Served) -> None:
    with opened(browser, served, color_scheme=scheme, viewport={"width": 1200, "height": 900}) as sheet:
        sheet.send("the cat sat on", 5)
        sheet.ends()
        ids = served.clear.prompt_ids("the cat sat on", 5)
        plain = served.clear.decode([*ids, *served.clear.greedy(ids, 5)])
        assert sheet.text(".turn .answer").strip() == plain.removeprefix("the cat sat on").strip()
        assert "5 tokens" in sheet.text(".turn .meta") and "rounds" in sheet.text(".turn .meta")
        assert sheet.tile("tokens") == "5" and float(sheet.tile("speed")) > 0
        assert int(sheet.tile("rounds").replace(",", "")) > 100 and "iB" in sheet.tile("all")
        assert sheet.page.evaluate("getComputedStyle(document.body).backgroundColor") == (
            "rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 28)"
        )


def test_the_drawing_holds_the_bytes_of_this_request(browser: Any, served: Served) -> None:
    with opened(browser, served) as sheet:
        sheet.send("the cat sat on", 2)
        sheet.ends()
        watch = next(w for w in reversed(served.gateway.watches._watches.values()))
        for rank in (1, 2):
            sample = bytes.fromhex("".join(sheet.drawn(f"{rank}-{i}") for i in range(4)).replace(" ", ""))
            assert len(sample) == 24 and watch.parties[rank].sample.startswith(sample)
        assert "seeds" in sheet.drawn("0-1") and "the cat sat on" in sheet.drawn("prompt")
        words = sheet.page.locator("#drawing-words").text_content()
        assert all(f"P{rank}" in words for rank in range(3)) and "masked data" in words
        drawing = sheet.page.get_by_role("img", name="Your request on its way to three parties")
        assert drawing.count() == 1
        sheet.page.locator("summary").click()
        samples = sheet.page.locator("#parties code").all_inner_texts()
        assert samples[0].startswith("no data") and samples[1].startswith(watch.parties[1].sample[:24].hex(" "))
        assert sheet.page.locator("#cost tbody tr").count() >= 4


def test_tokens_and_their_cost_appear_as_they_come(browser: Any, lasting: Served) -> None:
    with opened(browser, lasting) as sheet:
        sheet.send("the cat", 400)
        until(lambda: len(sheet.text(".turn .answer")) > 3 and sheet.tile("mine") != "–")
        length, tokens, mine = len(sheet.text(".turn .answer")), int(sheet.tile("tokens")), sheet.tile("mine")
        seconds = float(sheet.tile("seconds").split()[0])
        until(lambda: len(sheet.text(".turn .answer")) > length and sheet.tile("mine") != mine)
        until(lambda: int(sheet.tile("tokens")) > tokens and float(sheet.tile("seconds").split()[0]) > seconds)
        until(lambda: re.fullmatch(r"the parties compute token \d+ of at most 400", sheet.status()))
        assert sheet.tile("rounds") == "…"
        sheet.click("Stop")
        sheet.ends("stopped")
        until(lambda: lasting.gateway.worker.queued == 0, 10)
        # The parties have told what the part before the stop cost; the next answer's cost is estimated by a full one.
        until(lambda: int(sheet.tile("rounds").replace(",", "")) > 0)
        sheet.send("the cat", 3)
        sheet.ends()
        sheet.send("the cat", 400)
        until(lambda: sheet.tile("rounds").startswith("≈") and sheet.tile("all").startswith("≈"))
        sheet.click("Stop")
        sheet.ends("stopped")


def test_examples_limits_and_the_keyboard(browser: Any, served: Served) -> None:
    with opened(browser, served) as sheet:
        tokens = sheet.page.get_by_label("tokens")
        assert tokens.get_attribute("max") == "24" and tokens.input_value() == "24"
        assert sheet.page.get_by_role("button", name="Forget key").count() == 0  # nobody is asked for one here
        tokens.fill("25")
        assert not sheet.page.evaluate("document.getElementById('form').checkValidity()")
        tokens.fill("2")
        sheet.page.get_by_label("Your text").fill("the")
        sheet.page.get_by_label("Your text").press("Shift+Enter")
        assert sheet.page.get_by_label("Your text").input_value() == "the\n" and not sheet.asked
        sheet.page.get_by_role("group", name="Examples").get_by_role("button").first.click()
        sheet.ends()
        assert sheet.contents() == ["Once upon a time"] and sheet.page.locator("#empty").is_hidden()


def test_an_answer_is_copied(browser: Any, served: Served) -> None:
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    with opened(context, served) as sheet:
        sheet.send("the cat", 3)
        sheet.ends()
        sheet.click("Copy")
        until(lambda: sheet.page.get_by_role("button", name="Copied").count())
        answer = sheet.page.locator(".answer").text_content()
        assert answer and sheet.page.evaluate("navigator.clipboard.readText()") == answer
    context.close()


PLACES = ("a.example", "b.example", "c.example")


@pytest.mark.parametrize("places", [None, PLACES, ("a.example", "b.example", "a.example")])
def test_where_the_parties_are_is_said(places: Any, browser: Any, served: Served, llama: Path) -> None:
    if places is None:
        with opened(browser, served) as sheet:
            assert "all three parties on this machine" in sheet.text("#place")
            assert "could read everything" in sheet.drawn("place")
        return
    with serving(llama, places=places) as found, opened(browser, found) as sheet:
        assert all(f"P{rank} at {place}" in sheet.text("#place") for rank, place in enumerate(places))
        assert sheet.drawn("place") == "" and sheet.page.locator(".place.local").count() == (places != PLACES)
        assert sheet.page.locator("svg text.place").all_text_contents() == list(places)


def test_a_phone(browser: Any, served: Served) -> None:
    with opened(browser, served, viewport={"width": 390, "height": 844}) as sheet:
        sheet.send("the cat sat on the mat", 3)
        sheet.ends()
        assert sheet.page.evaluate("document.documentElement.scrollWidth") <= 390
        small = "[...document.querySelectorAll('button, input')].filter(e => e.offsetHeight && e.offsetHeight < 24)"
        assert sheet.page.evaluate(f"{small}.map(e => e.outerHTML)") == []
        nameless = (
            "[...document.querySelectorAll('input,textarea,button')].filter(e => !e.labels?.length && !e.textContent)"
        )
        assert sheet.page.evaluate(f"{nameless}.length") == 0


def test_an_encoder_has_no_box_of_tokens(browser: Any, checkpoints: dict[str, Path]) -> None:
    with serving(checkpoints["bert"]) as found, opened(browser, found) as sheet:
        assert sheet.page.get_by_label("tokens").is_hidden() and "numbers" in sheet.text("#kind")
        sheet.send("the cat sat")
        sheet.ends()
        assert re.match(r"\d+ numbers: -?0\.\d{4}, ", sheet.text(".answer"))
        assert int(sheet.tile("rounds").replace(",", "")) > 0
