"""The page in a real browser: it chats, tokens come one by one, and it shows what each party sees."""

from __future__ import annotations

import http.client
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from puma.gateway.endpoints.page import built
from tests.gateway.conftest import Served, serving, until
from tests.models import tiny

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real one, or a skip that says why."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser here: none of {', '.join(BROWSERS)}")
    with playwright.sync_playwright() as started:
        try:
            found = started.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        except playwright.Error as error:
            pytest.skip(f"{program} does not start: {str(error).splitlines()[0]}")
        yield found
        found.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_chat_in_a_browser(scheme: str, browser: Any, served: Served, tmp_path: Path) -> None:
    sheet = browser.new_page(color_scheme=scheme, viewport={"width": 1200, "height": 900})
    problems: list[str] = []
    sheet.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    sheet.on("pageerror", lambda error: problems.append(str(error)))
    sheet.on("request", lambda asked: problems.append(asked.url) if not asked.url.startswith(served.url) else None)
    sheet.goto(served.url)
    until(lambda: sheet.title() == "Puma: tiny")
    sheet.get_by_label("tokens").fill("5")
    sheet.get_by_label("Your text").fill("the cat sat on")
    sheet.get_by_label("Your text").press("Enter")
    until(lambda: sheet.locator("#status").inner_text() == "done")
    ids = served.clear.prompt_ids("the cat sat on", 5)
    plain = served.clear.decode([*ids, *served.clear.generate(ids, 5)])
    answer = sheet.locator(".turn.answer span").inner_text()
    assert answer.strip() == plain.removeprefix("the cat sat on").strip()
    sheet.wait_for_selector("#cost:not([hidden])")
    assert sheet.locator("#parties h3").count() == 3
    samples = sheet.locator("#parties code").all_inner_texts()
    assert samples[0].startswith("no data") and all(re.match(r"([0-9a-f]{2} ){8}", s) for s in samples[1:])
    assert "rounds" in sheet.locator("#total").inner_text() and sheet.locator("#cost tbody tr").count() >= 4
    assert sheet.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 28)"
    )
    nameless = (
        "[...document.querySelectorAll('input,textarea,button')].filter(e => !e.labels?.length && !e.textContent)"
    )
    assert sheet.evaluate(f"{nameless}.length") == 0
    sheet.screenshot(path=tmp_path / f"{scheme}.png", full_page=True)
    sheet.get_by_label("Your text").fill("the cat " * 30)
    sheet.get_by_role("button", name="Send").click()
    sheet.wait_for_selector(".turn.error")
    assert "the model's context 32" in sheet.locator(".turn.error span").inner_text()
    sheet.close()
    assert not [p for p in problems if "400" not in p]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_tokens_appear_as_they_come_and_stop_stops(browser: Any, tmp_path: Path) -> None:
    folder = tiny.llama(tmp_path / "long", num_hidden_layers=1, max_position_embeddings=512)
    with serving(folder, most=400) as found:
        sheet = browser.new_page()
        sheet.goto(found.url)
        until(lambda: sheet.title() == "Puma: tiny")
        sheet.get_by_label("tokens").fill("400")
        sheet.get_by_label("Your text").fill("the cat")
        sheet.get_by_role("button", name="Send").click()
        words = sheet.locator(".turn.answer span")
        until(lambda: len(words.inner_text()) > 3)
        length = len(words.inner_text())
        until(lambda: len(words.inner_text()) > length)
        assert sheet.locator("#status").inner_text() == "the parties compute"
        sheet.get_by_role("button", name="Stop").click()
        until(lambda: sheet.locator("#status").inner_text() == "stopped")
        until(lambda: found.gateway.worker.queued == 0, 10)
        sheet.close()
