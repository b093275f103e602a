"""What goes wrong, in a real browser: it belongs to its turn and chat, is said, and is not paid for twice."""

from __future__ import annotations

from typing import Any

import pytest

from puma.errors import PeerLost
from tests.gateway.browser import opened
from tests.gateway.conftest import Served, until

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
TOO_LONG = "the cat " * 30  # for the tiny model's context of 32


def test_a_new_chat_takes_nothing_from_an_answer_that_still_comes(browser: Any, lasting: Served) -> None:
    with opened(browser, lasting) as sheet:
        sheet.send("the dog", 400)
        until(lambda: len(sheet.text(".turn .answer")) > 3)
        sheet.click("New chat")
        assert sheet.page.locator(".turn").count() == 0 and sheet.page.locator("#empty").is_visible()
        sheet.send("the cat", 2)
        sheet.ends()
        assert sheet.contents() == ["the cat"]
        sheet.send("a mat", 2)
        until(lambda: len(sheet.asked) == 3)
        sheet.ends()
        first = sheet.page.locator(".answer").first.text_content()
        assert sheet.contents() == ["the cat", first, "a mat"] and sheet.page.locator(".turn").count() == 2
        until(lambda: lasting.gateway.worker.queued == 0, 10)


def test_a_failed_turn_is_not_sent_again(browser: Any, served: Served) -> None:
    with opened(browser, served) as sheet:
        sheet.send(TOO_LONG, 2)
        sheet.ends("failed")
        assert "the model's context 32" in sheet.page.get_by_role("alert").inner_text()
        assert "Shorten the prompt." in sheet.text(".problem .hint") and sheet.text(".meta") == "nothing was sent"
        assert sheet.page.locator(".turn .answer").is_hidden()  # an error is no answer
        sheet.send("the cat", 2)
        sheet.ends()
        assert sheet.contents() == ["the cat"]


def test_a_failed_turn_is_tried_again(browser: Any, served: Served) -> None:
    with opened(browser, served) as sheet:
        sheet.page.route("**/v1/chat/completions", lambda route: route.abort())
        sheet.send("the cat", 2)
        sheet.ends("failed")
        said = sheet.page.get_by_role("alert").inner_text()
        assert "The gateway does not answer." in said and "puma gateway" in said and "Failed to fetch" not in said
        sheet.page.unroute("**/v1/chat/completions")
        sheet.click("Try again")
        sheet.ends()
        assert sheet.page.locator(".turn").count() == 1 and sheet.contents() == ["the cat"]
        assert sheet.page.get_by_role("alert").count() == 0


def test_an_old_chat_is_too_long_for_one_more_turn(browser: Any, served: Served) -> None:
    with opened(browser, served) as sheet:
        sheet.send("the cat sat on the mat the cat sat on the mat", 4)
        sheet.ends()
        sheet.send("the dog ran " * 6, 2)
        sheet.ends("failed")
        sheet.click("Ask in a new chat")
        sheet.ends()
        assert len(sheet.contents()) == 1 and sheet.page.locator(".turn").count() == 1


def test_what_came_before_a_stop_belongs_to_the_chat(browser: Any, lasting: Served) -> None:
    with opened(browser, lasting) as sheet:
        sheet.send("the cat", 400)
        until(lambda: len(sheet.text(".turn .answer")) > 3)
        sheet.page.keyboard.press("Escape")
        sheet.ends("stopped")
        part = sheet.page.locator(".answer").first.text_content()
        sheet.send("a dog", 2)
        until(lambda: len(sheet.asked) == 2)
        sheet.ends()
        assert part and sheet.contents() == ["the cat", part, "a dog"]


def test_each_tab_has_its_own_cost(browser: Any, served: Served) -> None:
    with opened(browser, served) as one, opened(browser, served) as other:
        one.send("the cat", 2)
        one.ends()
        rounds, sample = one.tile("rounds"), one.drawn("1-0")
        other.send("the cat sat on", 6)
        other.ends()
        assert other.tile("rounds") != rounds and other.drawn("1-0") != sample
        one.send("the cat", 1)
        one.ends()
        one.page.get_by_role("button", name="What was sent").first.click()
        assert one.tile("rounds") == rounds and one.drawn("1-0") == sample


def test_parties_that_fail_are_told_and_nobody_asks_again_alone(browser: Any, served: Served) -> None:
    worker, begun = served.gateway.worker, []

    def fail() -> Any:
        begun.append(1)
        raise PeerLost("P2 is not there", "start it")

    until(lambda: worker.queued == 0)
    cluster, start = worker._cluster, worker._start
    worker._cluster, worker._start = None, fail
    try:
        with opened(browser, served) as sheet:
            sheet.send("the cat", 2)
            sheet.ends("failed")
            said = sheet.page.get_by_role("alert").inner_text()
            assert "P2 is not there." in said and "Start it." in said
            until(lambda: "the last session failed" in sheet.text("#place"))
            assert len(begun) == 1
            worker._cluster, worker._start = cluster, start
            sheet.click("Try again")
            sheet.ends()
            until(lambda: "failed" not in sheet.text("#place"))
    finally:
        worker._cluster, worker._start = cluster, start
