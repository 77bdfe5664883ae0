"""An HTTP address as one batch, or one address and batch for each day."""

import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cached_property
from pathlib import PurePosixPath
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import polars as pl

from ml_assets.access import Access
from ml_assets.errors import SourceError
from ml_assets.sources.batch import Batch, Calendar
from ml_assets.sources.formats import read_rows
from ml_assets.sources.json_rows import frame_of
from ml_assets.sources.pages import Answer, download, tag_of
from ml_assets.sources.web import Web
from ml_assets.spec.sources import HttpSource

DAY = "{day}"
AT_ONCE = 4  # days that are asked for at the same time
SMALL = 4096  # bytes; a shorter answer may hold no rows, and is looked at
MOST_KEPT = 64 * 2**20  # bytes of answers kept from a listing, so that reading them costs no second download
_NO_HEAD = (405, 501)


@dataclass(frozen=True, eq=False)
class HttpBatches:
    """Batches of one model's address.

    A batch's fingerprint is its ETag or Last-Modified, as a HEAD request tells; where the server tells neither, or
    answers in pages, it is a digest of the rows, which have to be downloaded for that.

    Attributes:
        place: model and key in its YAML, for messages.
        calendar: the days to ask for, if the address has `{day}` in it.
    """

    spec: HttpSource
    place: str
    access: Access = field(repr=False)
    calendar: Calendar | None = None
    _listed: dict[str, Batch] = field(default_factory=dict, repr=False)
    _kept: dict[str, tuple[str, Answer]] = field(default_factory=dict, repr=False)
    _without_rows: dict[str, str] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def batches(self) -> list[Batch]:
        if DAY in self.spec.url:
            found = self._ask_for(self._days())
        else:
            name = PurePosixPath(urlsplit(self.spec.url).path).name or str(urlsplit(self.spec.url).hostname)
            found = [each for each in [self._look(name)] if each]
        self._listed.clear()
        self._listed.update({each.id: each for each in found})
        return found

    def changed(self) -> bool:
        """Whether one of the last `look_back` days differs from the listing; True without days."""
        if DAY not in self.spec.url:
            return True  # a listing is one question
        days = self._days(self.spec.look_back)
        before = [self._listed[day] for day in days if day in self._listed]
        return self._ask_for(days) != before

    def address(self, batch: Batch) -> str:
        return self.spec.url.replace(DAY, batch.id)

    def read(self, batch: Batch, columns: Sequence[str] | None = None) -> pl.DataFrame:
        where = f"{self.place}: {self.address(batch)}"
        answer = self._content(batch, where)
        if not answer.pages:
            raise SourceError(f"{where} answers without any rows")
        if self.spec.format == "csv":
            pages = [read_rows(page, "csv", self.spec, columns, where) for page in answer.pages]
            return pl.concat(pages, how="diagonal")
        try:
            frame = frame_of([row for page in answer.pages for row in json.loads(page)])
        except UnicodeEncodeError as error:
            raise SourceError(f"{where}: {error}; mend the API") from None
        if missing := [name for name in columns or () if name not in frame.columns]:
            raise SourceError(
                f"{where} lacks a column of the contract: {', '.join(missing)}; it has {', '.join(frame.columns)}; "
                "mend the API, or the contract"
            )
        return frame if columns is None else frame.select(columns)

    def _content(self, batch: Batch, where: str) -> Answer:
        """The very content that was listed."""
        with self._lock:
            fingerprint, kept = self._kept.get(batch.id, (None, None))
        if kept is not None and fingerprint == batch.fingerprint:
            return kept
        answer = download(self._web, self.spec, self.address(batch), may_lack=True)
        if answer is None:
            raise SourceError(f"{where} is gone: 404; land it again")
        if batch.fingerprint not in (answer.tag, answer.digest):
            raise SourceError(
                f"{where} changed while it was read; the next tick reads it again. If this stays, its server answers "
                "HEAD and GET with different ETags: mend it, or let it refuse HEAD with 405"
            )
        return answer

    def _ask_for(self, days: Sequence[str]) -> list[Batch]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            asked = [pool.submit(self._look, day) for day in days]
            try:
                found = [each.result() for each in asked]
            except SourceError:
                pool.shutdown(wait=False, cancel_futures=True)  # a server that is down is not asked for every day
                raise
        return [each for each in found if each]

    def _look(self, name: str) -> Batch | None:
        """One batch as it is now; None if there is no such day or it has no rows."""
        url = self.spec.url.replace(DAY, name)
        may_lack = url != self.spec.url
        head = self._web.ask("HEAD", url, expected=(*_NO_HEAD, 404) if may_lack else _NO_HEAD)
        if head.status_code in (204, 404):
            return None
        tag = None if head.status_code in _NO_HEAD else tag_of(head)
        if tag and self._without_rows.get(name) == tag:
            return None
        one_page = self.spec.next is None and "next" not in head.links
        length = head.headers.get("Content-Length", "")
        large = length.isdecimal() and int(length) > SMALL
        if tag and one_page and (large or self._known(name, tag)):
            return Batch(name, tag)
        answer = download(self._web, self.spec, url, may_lack=may_lack)
        if answer is None:
            return None
        told = tag if tag and tag == answer.tag and not answer.paged else None
        if not answer.pages:
            if told:
                self._without_rows[name] = told
            return None
        fingerprint = told or answer.digest
        self._keep(name, fingerprint, answer)
        return Batch(name, fingerprint)

    def _known(self, name: str, tag: str) -> bool:
        return name in self._listed and self._listed[name].fingerprint == tag

    def _keep(self, name: str, fingerprint: str, answer: Answer) -> None:
        with self._lock:
            self._kept.pop(name, None)
            self._kept[name] = fingerprint, answer
            while sum(each.size for _, each in self._kept.values()) > MOST_KEPT:
                self._kept.pop(next(iter(self._kept)))

    def _days(self, look_back: int | None = None) -> list[str]:
        """The calendar's days up to today; only those from `look_back` days before today on, if it is given."""
        assert self.calendar is not None
        today = datetime.now(ZoneInfo(self.calendar.timezone)).date()
        first, last = self.calendar.first, min(self.calendar.last or today, today)
        if look_back is not None:
            first = max(first, today - timedelta(days=look_back))
        return [date.fromordinal(day).isoformat() for day in range(first.toordinal(), last.toordinal() + 1)]

    @cached_property
    def _web(self) -> Web:
        return Web(self.place, self.spec.token, self.access.tokens)
