"""The page of an explanation: what it embeds, what cannot break out of it, and how large it is."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from gte_np.explanation.page import page
from tests.explanation_documents import LARGEST, Size, sample_document

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "]]>&amp;&lt;",
    "line\u2028and\u2029paragraph",
    "a lone half \ud800 of a pair, and a whole one \U0001f600",
    "\\u003c/script\\u003e \" ' ` $& $1 POLICY DOCUMENT",
)


class Elements(HTMLParser):
    """What a parser of HTML finds: each element's name and attributes, and the text of the scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.contents: list[tuple[str, str]] = []
        self.is_inside = False
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.is_inside = tag in ("script", "style")
        if self.is_inside:
            self.contents.append((tag, ""))

    def handle_endtag(self, tag: str) -> None:
        self.is_inside = False

    def handle_data(self, data: str) -> None:
        if self.is_inside:
            tag, text = self.contents.pop()
            self.contents.append((tag, text + data))

    def text(self, tag: str, place: int = 0) -> str:
        return [text for found, text in self.contents if found == tag][place]


def embedded(html: str) -> Any:
    """The document, as the browser parses it back."""
    return json.loads(Elements(html).text("script"))


@pytest.mark.parametrize("size", [Size(), Size((7,))], ids=["two texts", "one text"])
def test_the_document_is_in_the_page(size: Size) -> None:
    document = sample_document(size)
    assert embedded(page(document)) == document


@pytest.mark.parametrize("hostile", HOSTILE)
def test_nothing_breaks_out_of_the_page(hostile: str) -> None:
    document = sample_document(Size((5, 6)))
    document["texts"][0] |= {"text": hostile, "tokens": [hostile] * 5}
    document |= {"model": hostile, "notes": [hostile]}
    document["walk"][0] |= {"source": hostile, "href": hostile, hostile: hostile}
    plain, html = page(sample_document(Size((5, 6)))), page(document)
    assert embedded(html) == document
    assert Elements(html).found == Elements(plain).found
    assert [text for _, text in Elements(html).contents[2:]] == [text for _, text in Elements(plain).contents[2:]]
    data = html.split('id="document">')[1].split("</script>")[0]
    assert data.isascii()
    assert not set(data) & set("<>&")


def test_the_page_begins_with_the_style_of_all_pages() -> None:
    assert "--ground: #fbfaf7" in Elements(page(sample_document(Size((5, 6))))).text("style")


def test_a_number_that_json_has_not_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        page(sample_document(Size((5, 6))) | {"cosine": float("nan")})


def test_nothing_is_loaded_from_elsewhere() -> None:
    html = page(sample_document(Size()))
    assert not re.findall(r"(?:https?:)?//[\w.]+", html.replace("http://www.w3.org/2000/svg", "").replace("// ", ""))
    found = Elements(html).found
    assert {tag for tag, _ in found} & {"img", "iframe", "object", "embed", "form", "base", "audio", "video"} == set()
    links = [attributes.get(name) for _, attributes in found for name in ("src", "href") if name in attributes]
    assert links == ["data:,"]
    assert "@import" not in html
    assert "url(" not in html
    for call in (
        "fetch(",
        "XMLHttpRequest",
        "WebSocket",
        "eval(",
        "innerHTML",
        "insertAdjacentHTML",
        "document.write",
    ):
        assert call not in html


def test_the_policy_lets_only_the_page_itself_run() -> None:
    elements = Elements(page(sample_document(Size((5, 6)))))
    [policy] = [attributes["content"] for tag, attributes in elements.found if "http-equiv" in attributes]
    rules = dict(rule.strip().split(" ", 1) for rule in (policy or "").split(";"))
    assert rules["default-src"] == "'none'"
    for rule, text in (("script-src", elements.text("script", 1)), ("style-src", elements.text("style"))):
        assert rules[rule] == f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
    # What the policy would stop: attributes that are styles or handlers.
    names = {name for _, attributes in elements.found for name in attributes}
    assert not [name for name in names if name == "style" or name.startswith("on")]


def test_the_page_of_two_long_texts_is_small() -> None:
    assert len(page(sample_document(LARGEST)).encode()) < 5_000_000


def test_every_element_that_the_script_asks_for_is_there() -> None:
    html = page(sample_document(Size((5, 6))))
    there = [attributes["id"] for _, attributes in Elements(html).found if "id" in attributes]
    asked = set(re.findall(r'element\("([\w-]+)"\)', html))
    asked |= {f"head-{name}" for name in ("before", "after", "above", "below")}
    assert asked <= set(there)
    assert len(set(there)) == len(there)
