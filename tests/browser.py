"""A real Chromium for the console, which must show nothing wrong of its own while a test looks at it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

from playwright.sync_api import BrowserContext, ConsoleMessage, Page, sync_playwright

from tests.tools import leave_out

#: What Debian, Chrome's own package and Ubuntu call it.
_NAMES = ("chromium", "google-chrome", "chromium-browser")
#: Milliseconds in which what a test waits for is there, on a busy machine.
PATIENCE_MS = 30_000


class Visitor:
    """A user with a browser: the page, and what went wrong in it.

    Parameters
    ----------
    context : BrowserContext
    origin : str
        Of the service, the only one that a page may ask.
    """

    def __init__(self, context: BrowserContext, origin: str) -> None:
        self.origin = origin
        self.context = context
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        #: Uncaught errors, breaches of the policy, and requests to elsewhere.
        self.faults: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("console", self._hear)
        self.page.on("request", lambda request: self._note_address(request.url))

    def open(self, address: str = "/") -> Page:
        """Go to an address of the service."""
        self.page.goto(self.origin + address)
        return self.page

    def _hear(self, message: ConsoleMessage) -> None:
        # A browser itself writes down each answer of 400 and above; the page shows those in words.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.faults.append(f"{message.type}: {message.text}")

    def _note_address(self, address: str) -> None:
        if not address.startswith((self.origin + "/", "data:", f"blob:{self.origin}/")):
            self.faults.append(f"request to {address}")


@contextlib.contextmanager
def open_browser(origin: str, **options: Any) -> Iterator[Visitor]:
    """Give a browser that has just been started; afterwards nothing may have gone wrong in it.

    Parameters
    ----------
    origin : str
        Address of the service, without a slash at its end.
    **options
        Of Playwright's ``new_context``, as ``color_scheme`` and ``viewport``.
    """
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        leave_out("no Chromium is installed; `make test` as root on Debian installs it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--disable-dev-shm-usage"])
        try:
            visitor = Visitor(browser.new_context(**options), origin)
            yield visitor
            assert visitor.faults == []
        finally:
            browser.close()
