"""Use pages of explanations as a person does, in a browser: python -m scripts.look_at_explanation MODEL FOLDER.

Needs selenium, Chromium and its driver. It points at tokens and cells, moves by the keyboard, opens heads of
attention, looks at a wide window, a phone's, a dark one and a print, measures the frames of two texts of 512 tokens,
checks what the pages show, and writes pages, pictures and prints to the folder. The model explains two texts and one;
the long texts and the approximation are of random numbers.
"""

from __future__ import annotations

import argparse
import base64
from pathlib import Path
from typing import Any

from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from gte_np import EmbeddingModel
from gte_np.explanation.page import page
from scripts.browser import WIDE, browser, check_width, set_view
from tests.explanation_documents import LARGEST, Size, sample_document

TEXTS = ("How many people live in London?", "Around 9 million people live in London")
PHONE = (360, 740)
LONGEST_PICTURE = 8000  # pixels
# Moves the pointer over the matrix for that many frames; gives the milliseconds from frame to frame.
FRAMES = """
const [count, done] = arguments;
const canvas = document.querySelectorAll("#matrix canvas")[1];
const box = canvas.getBoundingClientRect();
const gaps = [];
let last = null;
function frame(now) {
  if (last !== null) gaps.push(now - last);
  last = now;
  if (gaps.length === count) return done(gaps);
  const x = box.left + (box.width * (gaps.length % 97)) / 110;
  const y = box.top + (box.height * (gaps.length % 89)) / 110;
  canvas.dispatchEvent(new PointerEvent("pointermove", { clientX: x, clientY: y, bubbles: true }));
  requestAnimationFrame(frame);
}
requestAnimationFrame(frame);
"""
# The milliseconds that the script of the page takes to show another cell, so many times.
WORK = """
return Array.from({ length: arguments[0] }, (_, at) => {
  const begin = performance.now();
  [matrix.row, matrix.column] = [at % matrix.rows.length, (7 * at) % matrix.columns.length];
  matrix.mark();
  matrix.tell(matrix.row, matrix.column);
  return performance.now() - begin;
});
"""


def main() -> None:
    """Look, and write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--driver", default="/usr/bin/chromedriver")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    model = EmbeddingModel(options.model)
    documents = {
        "pair": model.explain(*TEXTS).document(),
        "approximate": sample_document(Size((20, 15), layers=24, heads=16), exact=False),
        "one": model.explain(TEXTS[0]).document(),
        "large": sample_document(LARGEST),
    }
    with browser(options.driver) as chrome:
        for name, document in documents.items():
            look(chrome, options.folder / f"{name}.html", document)
    print(f"{options.folder}: the pages work")


def look(chrome: Chrome, path: Path, document: dict[str, Any]) -> None:
    """Use one page, in every view."""
    path.write_text(page(document), "utf-8")
    set_view(chrome, WIDE, is_dark=False)
    chrome.get(path.resolve().as_uri())
    check_heads(chrome, document)
    if document["contributions"]:
        check_tokens(chrome, document)
        check_matrix(chrome, document)
        print(f"{path}: {path.stat().st_size:,} bytes; {frames(chrome)}")
    for name, size, is_dark in (("wide", WIDE, False), ("dark", WIDE, True), ("phone", PHONE, False)):
        set_view(chrome, size, is_dark)
        check_width(chrome)
        save_picture(chrome, path.with_suffix(f".{name}.png"), size[0])
    save_head(chrome, path.with_suffix(".head.png"))
    set_view(chrome, WIDE, is_dark=True)  # a print is light all the same
    path.with_suffix(".pdf").write_bytes(base64.b64decode(chrome.execute_cdp_cmd("Page.printToPDF", {})["data"]))
    said = [entry["message"] for entry in chrome.get_log("browser")]
    assert not said, said


def told(chrome: Chrome, name: str) -> str:
    """What a live region says, after the next frame."""
    chrome.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    return str(chrome.find_element(By.ID, name).text)


def press(chrome: Chrome, *keys: str) -> None:
    """Press keys, one after the other, where the focus is."""
    ActionChains(chrome).send_keys(*keys).perform()


def check_tokens(chrome: Chrome, document: dict[str, Any]) -> None:
    """A token that is pointed at, and the next one by the keyboard, are told, and colour the other text."""
    colours = (
        "return [...document.querySelectorAll('#texts .text:last-child .token')].map((token) => token.style.cssText)"
    )
    before = chrome.execute_script(colours)
    token = chrome.find_elements(By.CSS_SELECTOR, "#texts .token")[1]
    ActionChains(chrome).move_to_element(token).perform()
    assert f"“{document['texts'][0]['tokens'][1]}" in told(chrome, "token-told")
    assert chrome.execute_script(colours) != before
    chrome.execute_script("arguments[0].focus()", token)
    press(chrome, Keys.ARROW_RIGHT)
    assert f"“{document['texts'][0]['tokens'][2]}" in told(chrome, "token-told")
    chrome.find_elements(By.CSS_SELECTOR, "#colours button")[1].click()
    assert chrome.execute_script(colours) != before
    chrome.find_elements(By.CSS_SELECTOR, "#colours button")[0].click()
    assert chrome.execute_script(colours) == before


def check_matrix(chrome: Chrome, document: dict[str, Any]) -> None:
    """The pointer and the keyboard reach cells, whose tokens are told."""
    first, second = (text["tokens"] for text in document["texts"])
    canvas = chrome.find_elements(By.CSS_SELECTOR, "#matrix canvas")[1]
    ActionChains(chrome).move_to_element(canvas).perform()
    pointed = told(chrome, "pair")
    chrome.execute_script("arguments[0].focus()", canvas)
    press(chrome, *([Keys.PAGE_UP] * 60), Keys.HOME)
    start = told(chrome, "pair")
    assert start.startswith(f"“{first[0]}” and “{second[0]}”: "), start
    assert start != pointed
    press(chrome, Keys.ARROW_DOWN, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    moved = told(chrome, "pair")
    assert moved.startswith(f"“{first[1]}” and “{second[2]}”: "), moved


def check_heads(chrome: Chrome, document: dict[str, Any]) -> None:
    """A head opens by Enter and by a click; arrow keys go to the next ones, Escape closes, and the focus is back."""
    heads = document["attentions"][0]["heads"]
    buttons = chrome.find_elements(By.CSS_SELECTOR, ".thumbnails button")
    chrome.execute_script("arguments[0].focus()", buttons[0])
    press(chrome, Keys.ARROW_RIGHT, Keys.ENTER)
    assert told(chrome, "head-title").endswith("ayer 1, head 2")
    press(chrome, Keys.ARROW_DOWN, Keys.ARROW_RIGHT)
    assert told(chrome, "head-title").endswith("ayer 2, head 3")
    before = told(chrome, "head-told")
    ActionChains(chrome).key_down(Keys.SHIFT).send_keys(Keys.ARROW_RIGHT).key_up(Keys.SHIFT).perform()
    assert told(chrome, "head-told") != before
    press(chrome, Keys.ESCAPE)
    assert not chrome.find_element(By.ID, "head").is_displayed()
    assert chrome.switch_to.active_element == buttons[heads + 2]
    buttons[0].click()
    assert told(chrome, "head-title").endswith("ayer 1, head 1")
    chrome.find_element(By.ID, "head-close").click()


def frames(chrome: Chrome) -> str:
    """How long frames take while the pointer goes over the matrix, in words."""
    chrome.execute_script("document.getElementById('matrix').scrollIntoView()")
    gaps = sorted(chrome.execute_async_script(FRAMES, 200))
    work = sorted(chrome.execute_script(WORK, 200))
    return (
        f"a frame every {gaps[100]:.1f} ms, 95 of 100 under {gaps[190]:.1f} ms; "
        f"showing another cell takes the script {work[100]:.1f} ms, 95 of 100 times under {work[190]:.1f} ms"
    )


def save_picture(chrome: Chrome, path: Path, width: int) -> None:
    """The whole page, or its first part, as a picture."""
    height = chrome.execute_script("window.scrollTo(0, 0); return document.documentElement.scrollHeight")
    clip = {"x": 0, "y": 0, "width": width, "height": min(height, LONGEST_PICTURE), "scale": 1}
    settings = {"clip": clip, "captureBeyondViewport": True}
    path.write_bytes(base64.b64decode(chrome.execute_cdp_cmd("Page.captureScreenshot", settings)["data"]))


def save_head(chrome: Chrome, path: Path) -> None:
    """An opened head, on a phone and then in a wide window."""
    chrome.execute_script("document.querySelector('.thumbnails button').click()")
    chrome.save_screenshot(str(path.with_suffix(".phone.png")))
    set_view(chrome, WIDE, is_dark=False)
    chrome.save_screenshot(str(path))
    chrome.execute_script("document.getElementById('head').close()")


if __name__ == "__main__":
    main()
