"""An explanation as one page of HTML, which asks for nothing from elsewhere, and may not."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from gte_np.pages import read_page


def page(document: Mapping[str, Any]) -> str:
    """The page that shows the document of an explanation: HTML with everything in it, style, script and numbers.

    Raises ValueError if the document has a number that is not finite, which JSON cannot hold.
    """
    before, after = _template()
    return before + _embedded(document) + after


def _embedded(document: Mapping[str, Any]) -> str:
    """JSON in ASCII that stays inside its element: nothing in it can be read as markup."""
    text = json.dumps(document, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _template() -> tuple[str, str]:
    """The page before and after the document; its policy lets nothing run and nothing style but what the file has."""
    html = read_page(Path(__file__).with_name("page.html"))
    policy = (
        f"default-src 'none'; script-src {_hash(html, 'script')}; style-src {_hash(html, 'style')}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    before, after = html.replace("POLICY", policy, 1).split("DOCUMENT", 1)
    return before, after


def _hash(html: str, tag: str) -> str:
    """The source expression of a Content-Security-Policy for the element without attributes of that tag."""
    [content] = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
