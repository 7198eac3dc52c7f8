"""Use the page of a server as a person does, in a headless browser: python -m scripts.look_at_page MODEL FOLDER.

Needs selenium, Chromium and its driver. It starts a server, types, moves by the keyboard, gives a key, looks at a
wide window, a phone's and a dark one, checks what the page shows, and writes the pictures to the folder.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from scripts.browser import PHONE, WIDE, browser, check_width, set_view
from scripts.server import serving

KEY = "a-key-of-the-page"


def main() -> None:
    """Look, and write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--driver", default="/usr/bin/chromedriver")
    parser.add_argument("--python", default=sys.executable, help="a Python with gte_np[serve]")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    server = serving(options.model, "--api-key", KEY, python=options.python)
    with server as address, browser(options.driver) as chrome:
        chrome.get(address)
        give_key(chrome)
        check_typing(chrome)
        check_keyboard(chrome)
        for name, size, is_dark in (("desktop", WIDE, False), ("dark", WIDE, True), ("phone", PHONE, False)):
            set_view(chrome, size, is_dark)
            check_width(chrome)
            chrome.execute_script("document.getElementById('key-row').hidden = true")
            chrome.save_screenshot(str(options.folder / f"{name}.png"))
        chrome.get(f"{address}/docs")
        WebDriverWait(chrome, 20).until(lambda _: len(chrome.find_elements(By.CSS_SELECTOR, "details")) > 10)
        check_console(chrome)
    print(f"{options.folder}: the page works")


def give_key(chrome: Chrome) -> None:
    """The page asks for the key once the server has refused it, and then compares its first texts."""
    key = chrome.find_element(By.ID, "key")
    WebDriverWait(chrome, 20).until(lambda _: key.is_displayed())
    key.send_keys(KEY)
    WebDriverWait(chrome, 20).until(lambda _: len(cells(chrome)) == 25)


def cells(chrome: Chrome) -> list[str]:
    """What the heat map shows, row by row."""
    script = "return [...document.querySelectorAll('#matrix tbody td')].map((cell) => cell.textContent)"
    return [str(cell) for cell in chrome.execute_script(script)]


def check_typing(chrome: Chrome) -> None:
    """Two texts more are typed: one is the same as the first, one is too long and has an unknown word."""
    before = cells(chrome)
    texts = chrome.find_element(By.ID, "texts")
    texts.send_keys(Keys.CONTROL, Keys.END)
    texts.send_keys(f"\nHow many people live in London?\n\u16a0 {'the sea and the beach ' * 60}")
    WebDriverWait(chrome, 20).until(lambda _: len(cells(chrome)) == 49)
    after = cells(chrome)
    assert [after[7 * row + column] for row in range(5) for column in range(5)] == before
    assert after[5] == after[35] == "1.00"
    facts = [line.text for line in chrome.find_elements(By.CSS_SELECTOR, "#tokens p")]
    assert "cut off" in facts[6], facts
    assert "unknown [UNK]" in facts[6], facts
    assert chrome.find_elements(By.CSS_SELECTOR, "#tokens li:nth-child(7) .cut")
    assert "ms on the server" in chrome.find_element(By.ID, "times").text
    # The long text is taken away again, by the keyboard.
    chrome.execute_script("arguments[0].value = arguments[0].value.split('\\n').slice(0, 5).join('\\n')", texts)
    texts.send_keys(Keys.CONTROL, Keys.ENTER)
    WebDriverWait(chrome, 20).until(lambda _: cells(chrome) == before)


def check_keyboard(chrome: Chrome) -> None:
    """Tab leads to the heat map, arrow keys go through it, and the cell is told."""
    keys = ActionChains(chrome)  # from the texts, by the button, to the field of the key, to the first cell
    for key in (Keys.TAB, Keys.TAB, Keys.TAB, Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ARROW_DOWN):
        keys.send_keys(key)
    keys.perform()
    told = chrome.find_element(By.ID, "cell").text
    assert told.startswith("Texts 3 and 2: "), told


def check_console(chrome: Chrome) -> None:
    """The browser says nothing but that the server refused requests without the whole key."""
    said = [entry["message"] for entry in chrome.get_log("browser")]
    assert all("401" in message for message in said), said


if __name__ == "__main__":
    main()
