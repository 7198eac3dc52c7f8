"""The pages: files of this package, which ask for nothing from elsewhere, and may not."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from starlette.responses import HTMLResponse, Response

from gte_np.pages import read_page

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Vary": "Accept",
}


def page(name: str) -> Response:
    """The page of that name."""
    return HTMLResponse(_read(name), headers=_HEADERS)


@cache
def _read(name: str) -> str:
    return read_page(Path(__file__).with_name(name))
