"""One answer of an API, all pages of it: followed from page to page, and compared by tag or content."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urljoin, urlsplit

from ml_assets.errors import SourceError
from ml_assets.sources.json_rows import rows_at, text_at
from ml_assets.sources.web import Web
from ml_assets.spec.sources import HttpSource

MOST_PAGES = 10_000


@dataclass(frozen=True)
class Answer:
    """What an address answered.

    Attributes:
        pages: the rows of each page that has any: as JSON list of objects, or as CSV.
        tag: what the server says of its version, see `tag_of`.
        paged: whether there were several pages, so that the first one's tag tells nothing of the others.
    """

    pages: list[bytes]
    tag: str | None
    paged: bool

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the rows as they were written."""
        sha = hashlib.sha256()
        for page in self.pages:
            sha.update(f"{len(page)}:".encode() + page)
        return sha.hexdigest()

    @property
    def size(self) -> int:
        return sum(map(len, self.pages))


def tag_of(response: Any) -> str | None:
    """ETag, else Last-Modified and length; None if the server tells neither."""
    headers = response.headers
    if etag := headers.get("ETag"):
        return str(etag).removeprefix("W/").strip('"')
    if modified := headers.get("Last-Modified"):
        return f"{modified} {headers.get('Content-Length', '')}".strip()
    return None


def download(web: Web, spec: HttpSource, url: str, *, may_lack: bool) -> Answer | None:
    """All pages from `url` on; None if there is no such address and it `may_lack`.

    Raises:
        SourceError: if a page cannot be had or read, or the next one lies elsewhere or was read already.
    """
    pages: list[bytes] = []
    tag = None
    seen: list[str] = []
    address: str | None = url
    while address:
        if address in seen or len(seen) == MOST_PAGES:
            raise SourceError(
                f"{web.place}: {url}: its pages do not end: after {len(seen)} of them comes {address}; mend the API"
            )
        response = web.ask("GET", address, expected=(404,) if may_lack and not seen else ())
        if response.status_code == 404:
            return None
        tag = tag_of(response) if not seen else tag
        seen.append(address)
        page, following = _page(response, spec, f"{web.place}: {address}")
        pages += [page] if page else []
        address = urljoin(response.url, following) if following else None
        if address and _origin(address) != _origin(url):
            raise SourceError(
                f"{web.place}: {url}: its next page would be {address}, on another server, which must not see the "
                "token; mend the API, or source.url"
            )
    return Answer(pages, tag, len(seen) > 1)


def _page(response: Any, spec: HttpSource, where: str) -> tuple[bytes, str | None]:
    """One page's rows, empty if there are none, and the address of the next page."""
    link = response.links.get("next", {}).get("url")
    if response.status_code == 204 or not response.content.strip():
        return b"", link
    if spec.format == "csv":
        lines = [line for line in response.content.split(b"\n", 2)[:2] if line.strip()]
        return response.content if len(lines) > spec.csv.header else b"", link
    try:
        document = json.loads(response.content)
    except (ValueError, RecursionError) as error:
        kind = response.headers.get("Content-Type", "something without a Content-Type")
        raise SourceError(f"{where}: no JSON, but {kind}: {error}; mend source.url or source.format") from None
    rows = rows_at(document, spec.records, where)
    following = link if spec.next is None else text_at(document, spec.next, where)
    return json.dumps(rows).encode() if rows else b"", following


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
