"""The page as a person has it before them: opened in a real browser, typed into, read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.gateway.conftest import Served, until

EXPECTED = re.compile("Failed to load resource")  # what the browser itself says of a refusal


class Sheet:
    """One tab. `asked` holds the bodies of all requests for answers that it sent."""

    def __init__(self, page: Any, url: str) -> None:
        self.page, self.url = page, url
        self.asked: list[dict[str, Any]] = []
        self.problems: list[str] = []
        page.on("console", lambda said: self._note(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", self._request)

    def _note(self, text: str) -> None:
        if not EXPECTED.search(text):
            self.problems.append(text)

    def _request(self, request: Any) -> None:
        if not request.url.startswith(self.url):
            self.problems.append(f"asks {request.url}")
        if request.method == "POST":
            self.asked.append(json.loads(request.post_data))

    def contents(self, nth: int = -1) -> list[str]:
        """What the messages of a request said."""
        return [message["content"] for message in self.asked[nth]["messages"]]

    def send(self, text: str, tokens: int | None = None) -> None:
        if tokens is not None:
            self.page.get_by_label("tokens").fill(str(tokens))
        self.page.get_by_label("Your text").fill(text)
        self.page.get_by_label("Your text").press("Enter")

    def status(self) -> str:
        return self.page.locator("#status").inner_text()

    def ends(self, state: str = "done") -> None:
        """Wait for the last turn's end and its cost."""
        until(lambda: self.status() == state and self.page.locator(".turn:last-child .meta span").count())

    def text(self, where: str) -> str:
        return self.page.locator(where).inner_text()

    def drawn(self, name: str) -> str:
        """What a text of the drawing says."""
        return self.page.locator(f"#drawn-{name}").text_content()

    def tile(self, name: str) -> str:
        return self.text(f"#t-{name}")

    def click(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).last.click()


@contextmanager
def opened(browser: Any, served: Served, **context: Any) -> Iterator[Sheet]:
    """A new tab on the page; nothing may have gone wrong in it when it is closed."""
    page = browser.new_page(**context)
    sheet = Sheet(page, served.url)
    try:
        page.goto(served.url)
        until(lambda: page.title() == "Puma: tiny")
        yield sheet
        assert not sheet.problems
    finally:
        page.close()
