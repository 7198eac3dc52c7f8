"""A headless Chromium, for the scripts that look at pages; needs selenium, Chromium and its driver."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from selenium.webdriver import Chrome, ChromeOptions, ChromeService

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
WIDE, PHONE = (1180, 900), (390, 844)


@contextmanager
def browser(driver: str) -> Iterator[Chrome]:
    """A browser without a window, of a new profile."""
    with tempfile.TemporaryDirectory() as profile:
        settings = ChromeOptions()
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            settings.add_argument(flag)
        settings.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        chrome = Chrome(settings, ChromeService(driver))
        try:
            set_view(chrome, WIDE, is_dark=False)
            yield chrome
        finally:
            chrome.quit()


def set_view(chrome: Chrome, size: tuple[int, int], is_dark: bool) -> None:
    """A window of that size, in light or dark."""
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def check_width(chrome: Chrome) -> None:
    """Nothing is wider than the window."""
    wide = chrome.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, wide
