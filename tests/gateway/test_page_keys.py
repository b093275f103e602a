"""The page before a gateway that wants a key: it asks for one, keeps it in its tab, and says when it is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from puma.gateway.load.keys import Key, Keys, digest
from tests.gateway.browser import Sheet, opened
from tests.gateway.conftest import Served, serving, until

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
RIGHT = "sk-that-is-known"


@pytest.fixture(scope="module")
def keyed(llama: Path) -> Iterator[Served]:
    with serving(llama, keys=Keys({digest(RIGHT): Key("alice")}), api_key=RIGHT) as found:
        yield found


def show(sheet: Sheet, key: str) -> None:
    sheet.page.get_by_label("has a key of its own").fill(key)
    sheet.click("Use this key")


def stored(sheet: Sheet) -> Any:
    return sheet.page.evaluate("[sessionStorage.getItem('puma-key'), localStorage.length, document.cookie]")


def test_a_key_is_asked_for_tried_and_kept_by_its_tab(browser: Any, keyed: Served) -> None:
    context = browser.new_context()
    with opened(context, keyed) as sheet:
        text = sheet.page.get_by_label("Your text")
        assert text.is_hidden() and sheet.page.get_by_label("has a key").get_attribute("type") == "password"
        for wrong in ("sk-that-is-not-known", "schlüssel"):
            show(sheet, wrong)
            until(lambda: "does not know this key" in sheet.text("#key-problem"))
            assert text.is_hidden() and stored(sheet) == [None, 0, ""]
        sheet.page.get_by_role("group", name="Examples").get_by_role("button").first.click()
        assert not sheet.asked  # nothing is sent without a key
        show(sheet, f"  {RIGHT} ")
        until(text.is_visible)
        assert stored(sheet) == [RIGHT, 0, ""]
        sheet.send("the cat", 2)
        sheet.ends()
        sheet.page.reload()
        until(lambda: sheet.page.title() == "Puma: tiny")
        assert text.is_visible()
        sheet.send("the cat", 2)
        sheet.ends()
        other = context.new_page()  # another tab knows nothing of it
        other.goto(keyed.url)
        until(other.get_by_label("has a key").is_visible)
    context.close()


def test_a_key_that_is_taken_away_or_forgotten(browser: Any, keyed: Served) -> None:
    with opened(browser, keyed) as sheet:
        show(sheet, RIGHT)
        until(sheet.page.get_by_label("Your text").is_visible)
        keys: Any = keyed.gateway.keys._keys
        known = dict(keys)
        keys.clear()
        sheet.send("the cat", 2)
        sheet.ends("failed")
        until(lambda: "any more" in sheet.text("#key-problem"))
        assert stored(sheet)[0] is None and sheet.page.get_by_label("Your text").is_hidden()
        sheet.click("Try again")  # asks for the key first, else the text were lost
        assert sheet.page.locator(".turn").count() == 1
        keys.update(known)
        show(sheet, RIGHT)
        until(sheet.page.get_by_label("Your text").is_visible)
        sheet.click("Try again")
        sheet.ends()
        sheet.click("Forget key")
        assert stored(sheet)[0] is None and sheet.page.locator(".turn").count() == 0
        assert sheet.page.get_by_label("has a key").is_visible()
