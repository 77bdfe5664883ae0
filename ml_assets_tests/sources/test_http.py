import json
import logging
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pandera.polars as pa
import polars as pl
import pytest

from ml_assets.access import Access
from ml_assets.contract import Contract
from ml_assets.errors import SourceError
from ml_assets.lake import Lake
from ml_assets.sources import Calendar, Source, http, open_source, retries, web
from ml_assets.sources.feed import Feed, read_partitions, survey
from ml_assets.sources.json_rows import frame_of
from ml_assets.spec.sources import HttpSource
from ml_assets_tests.api import Api, api_server
from ml_assets_tests.faults import RESET, SILENT, TRUNCATED, Fault, Proxy, answer, faulty

ROWS = [{"id": 1, "zone": "a"}, {"id": 2, "zone": "b"}]
FRAME = pl.DataFrame(ROWS)
CALENDAR = Calendar("at", "UTC", date(2025, 1, 1), date(2025, 1, 5))


@pytest.fixture
def api() -> Iterator[Api]:
    with api_server() as running:
        yield running


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.01)


def source(url: str, calendar: Calendar | None = None, tokens: dict[str, str] | None = None, **options: Any) -> Source:
    spec = HttpSource.model_validate({"kind": "http", "url": url} | options)
    return open_source(spec, "demo: source", Access(tokens=tokens or {}), calendar)


def test_an_address_is_one_batch_whose_fingerprint_follows_its_content(api: Api) -> None:
    api.put("/v1/orders", ROWS)
    orders = source(f"{api.url}/v1/orders")
    (before,) = orders.batches()
    assert before.id == "orders"
    assert orders.batches() == [before]
    assert orders.read(before).equals(FRAME)
    api.put("/v1/orders", ROWS[:1])
    (after,) = orders.batches()
    assert after.fingerprint != before.fingerprint
    assert orders.read(after).equals(FRAME.head(1))


def test_what_has_an_etag_is_listed_without_a_download_and_what_has_none_is_downloaded_once(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "SMALL", 10)
    api.put("/orders", ROWS)
    orders = source(f"{api.url}/orders")
    (tagged,) = orders.batches()
    assert api.count("GET") == 0
    api.tagged = False
    (untagged,) = orders.batches()
    assert orders.read(untagged).equals(FRAME)
    assert api.count("GET") == 1
    assert untagged.fingerprint != tagged.fingerprint
    api.tagged, api.head = True, False
    assert orders.batches() == [untagged]


def test_last_modified_stands_in_for_an_etag(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "SMALL", 10)
    api.tagged = False
    api.put("/orders", ROWS, **{"Last-Modified": "Wed, 01 Jan 2025 00:00:00 GMT"})
    orders = source(f"{api.url}/orders")
    (before,) = orders.batches()
    assert api.count("GET") == 0
    assert orders.read(before).equals(FRAME)
    api.put("/orders", ROWS, **{"Last-Modified": "Wed, 01 Jan 2025 00:00:01 GMT"})
    assert orders.batches() != [before]


def test_content_that_changed_since_it_was_listed_is_not_taken_for_it(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "SMALL", 10)
    api.put("/orders", ROWS)
    orders = source(f"{api.url}/orders")
    (before,) = orders.batches()
    api.put("/orders", ROWS[:1])
    with pytest.raises(SourceError, match=r"/orders changed while it was read; the next tick reads it again"):
        orders.read(before)


@pytest.mark.parametrize("by", ["path", "link"])
def test_pages_are_followed_to_the_last_and_any_of_them_changes_the_fingerprint(api: Api, by: str) -> None:
    def put(page: int, rows: list[dict[str, Any]], following: str | None) -> None:
        if by == "path":
            api.put(f"/orders?page={page}", {"data": {"items": rows}, "links": {"next": following}})
        else:
            link = {"Link": f'<{following}>; rel="next"'} if following else {}
            api.put(f"/orders?page={page}", {"data": {"items": rows}}, **link)

    put(1, ROWS, "?page=2")
    put(2, [], f"{api.url}/orders?page=3")
    put(3, ROWS[:1], None)
    options = {"records": "data.items"} | ({"next": "links.next"} if by == "path" else {})
    orders = source(f"{api.url}/orders?page=1", **options)
    (before,) = orders.batches()
    assert orders.read(before)["id"].to_list() == [1, 2, 1]
    assert api.count("GET") == 3
    put(3, ROWS[1:], None)
    (after,) = orders.batches()
    assert after.fingerprint != before.fingerprint
    assert orders.read(after)["id"].to_list() == [1, 2, 2]


def test_a_next_page_on_another_server_is_refused_before_it_sees_the_token(api: Api) -> None:
    with api_server() as other:
        api.put("/orders", {"items": ROWS, "next": f"{other.url}/orders"})
        orders = source(f"{api.url}/orders", {}, {"shop": "s3cret"}, token="shop", records="items", next="next")
        with pytest.raises(SourceError, match=rf"next page would be {other.url}/orders, on another server"):
            orders.batches()
        assert other.asked == []


def test_pages_that_go_in_circles_are_refused(api: Api) -> None:
    api.put("/orders", {"items": ROWS, "next": "/orders?page=2"})
    api.put("/orders?page=2", {"items": ROWS, "next": "/orders"})
    with pytest.raises(SourceError, match=r"its pages do not end: after 2 of them comes .*/orders; mend"):
        source(f"{api.url}/orders", records="items", next="next").batches()


def test_each_day_that_has_rows_is_a_batch(api: Api) -> None:
    api.put("/orders/2025-01-01", ROWS)
    api.put("/orders/2025-01-02", [])
    api.put("/orders/2025-01-03", b"", status=204)
    api.put("/orders/2025-01-05", ROWS[:1])
    api.put("/orders/2025-01-06", ROWS)  # after the calendar
    orders = source(f"{api.url}/orders/{{day}}", CALENDAR)
    found = orders.batches()
    assert [each.id for each in found] == ["2025-01-01", "2025-01-05"]
    assert [orders.read(each).height for each in found] == [2, 1]
    api.asked.clear()
    assert orders.batches() == found
    assert api.count("GET") == 0  # neither what is unchanged nor what still has no rows
    api.put("/orders/2025-01-02", ROWS)
    assert [each.id for each in orders.batches()] == ["2025-01-01", "2025-01-02", "2025-01-05"]


def test_a_tick_asks_for_the_last_days_only_and_sees_what_changed_in_them(api: Api) -> None:
    today = datetime.now(UTC).date()
    days = [(today - timedelta(days=back)).isoformat() for back in range(6, -1, -1)]
    for day in days[:-1]:
        api.put(f"/{day}", ROWS)
    orders = source(f"{api.url}/{{day}}", Calendar("at", "UTC", today - timedelta(days=6)), look_back=2)
    assert orders.changed()  # nothing was listed yet
    orders.batches()
    api.asked.clear()
    assert not orders.changed()
    assert sorted({path for _, path in api.asked}) == [f"/{day}" for day in days[-3:]]
    api.put(f"/{days[0]}", ROWS[:1])
    assert not orders.changed()  # found by a listing, every `list_every`
    api.put(f"/{days[-1]}", ROWS)
    assert orders.changed()


def test_an_api_fills_the_days_of_a_model(api: Api, tmp_path: Path) -> None:
    class Rows(pa.DataFrameModel):
        id: int = pa.Field(metadata={"role": "key"})
        at: date = pa.Field(metadata={"role": ["key", "event_time"]})
        km: float = pa.Field(metadata={"role": "request"})
        late: bool = pa.Field(metadata={"role": "target"})

    def row(day: int, km: Any) -> dict[str, Any]:
        return {"id": day, "at": f"2025-01-0{day}", "km": km, "late": True, "tags": {"new": [day]}}

    api.put("/2025-01-02", [row(2, 1), row(3, "2.5")])
    api.put("/2025-01-04", [row(4, None)])
    lake = Lake(tmp_path / "lake")
    feed = Feed("demo", "raw_data", source(f"{api.url}/{{day}}", CALENDAR), Contract.read(Rows, "demo"), CALENDAR)
    found = survey(feed, lake)
    assert sorted(found.partitions) == ["2025-01-02", "2025-01-03", "2025-01-04"]
    rows = read_partitions(feed, found, sorted(found.partitions))
    assert rows["km"].to_list() == [1.0, 2.5, None]
    assert rows["at"].to_list() == [date(2025, 1, day) for day in (2, 3, 4)]
    assert rows["tags"][0] == '{"new": [2]}'
    assert rows["_source"].unique().sort().to_list() == ["2025-01-02", "2025-01-04"]
    before = found.fingerprint("2025-01-04")
    assert survey(feed, lake).fingerprint("2025-01-04") == before
    api.put("/2025-01-04", [row(4, 7)])
    assert survey(feed, lake).fingerprint("2025-01-04") != before


def test_csv_is_text_and_its_pages_have_a_header_each(api: Api) -> None:
    api.put("/orders", b"id,zone\n 1,a\n", Link='</orders?page=2>; rel="next"')
    api.put("/orders?page=2", b"id,zone\n2,\n", Link='</orders?page=3>; rel="next"')
    api.put("/orders?page=3", b"id,zone\n")
    orders = source(f"{api.url}/orders", format="csv")
    assert orders.read(orders.batches()[0]).rows() == [(" 1", "a"), ("2", None)]
    api.put("/orders", b"id,zone\n")
    assert orders.batches() == []


TOKEN = "t0p-s3cret-value"


def test_a_token_is_sent_with_every_request_and_never_told(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    api.put("/orders", ROWS)
    api.token = TOKEN
    with caplog.at_level(logging.DEBUG):
        orders = source(f"{api.url}/orders", None, {"shop": TOKEN}, token="shop")
        assert orders.read(orders.batches()[0]).equals(FRAME)
        with pytest.raises(SourceError, match=r"401 .*refused; set ML_ASSETS_TOKEN_SHOP to a valid one"):
            source(f"{api.url}/orders", None, {"shop": TOKEN + "x"}, token="shop").batches()
        with pytest.raises(SourceError, match=r"401 .*set source.token, and ML_ASSETS_TOKEN_<NAME>"):
            source(f"{api.url}/orders").batches()
        with pytest.raises(SourceError, match=r"demo: source: ML_ASSETS_TOKEN_SHOP is not set"):
            source(f"{api.url}/orders", token="shop").batches()
        with pytest.raises(SourceError, match=r"ML_ASSETS_TOKEN_SHOP holds characters that no header may") as caught:
            source(f"{api.url}/orders", None, {"shop": f"{TOKEN}\nx: y"}, token="shop").batches()
    assert TOKEN not in caplog.text + str(caught.value) + repr(orders)
    assert len(api.asked) == 4  # listing and reading; one try for each refusal


def test_neither_a_redirect_nor_netrc_comes_between_the_token_and_its_server(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password else")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    api.token = TOKEN
    api.put("/orders", ROWS)
    orders = source(f"{api.url}/orders", None, {"shop": TOKEN}, token="shop")
    assert len(orders.batches()) == 1
    with api_server() as other:
        other.token = TOKEN  # which it should not be sent
        other.put("/orders", ROWS)
        api.put("/orders", b"", status=302, Location=f"{other.url}/orders")
        with pytest.raises(SourceError, match="401"):
            orders.batches()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<html>log in</html>", r"no JSON, but application/json: Expecting value.*mend source.url or source.format"),
        ({"items": ROWS}, r"nothing at 'data.items'; at its top is an object with 'items'; mend source.records"),
        ({"data": {"rows": []}}, r"nothing at 'data.items'; at 'data' is an object with 'rows'"),
        ({"data": {"items": {"a": 1}}}, r"no list of rows at 'data.items', but an object with 'a'"),
        ({"data": {"items": [1]}}, r"row 0 at 'data.items' is no object, but a number"),
    ],
)
def test_a_body_of_another_form_is_told_with_address_path_and_what_is_there(api: Api, content: Any, said: str) -> None:
    api.put("/orders", content)
    with pytest.raises(SourceError, match=rf"demo: source: {api.url}/orders: {said}"):
        source(f"{api.url}/orders", records="data.items").batches()
    assert api.count("GET") == 1


@pytest.mark.parametrize("status", [400, 403, 404, 410, 422])
def test_what_will_fail_again_is_tried_once(api: Api, status: int) -> None:
    api.put("/orders", b"", status=status)
    with pytest.raises(SourceError, match=rf"/orders: {status} "):
        source(f"{api.url}/orders").batches()
    assert len(api.asked) == 1


OVER = "Wed, 01 Jan 2020 00:00:00 GMT"
FAULTS = {
    "408": (answer(408), "408 Request Timeout"),
    "429": (answer(429, Retry_After="0"), "429 Too Many Requests"),
    "500": (answer(500), "500 Internal Server Error"),
    "503": (answer(503, Retry_After=OVER), "503 Service Unavailable"),
    "reset": (RESET, "does not answer in full: .*reset"),
    "truncated": (TRUNCATED, "does not answer in full: .*IncompleteRead"),
    "silent": (SILENT, "does not answer in full: .*timed out"),
}


@pytest.fixture
def proxy(api: Api) -> Iterator[Proxy]:
    with faulty(api.url) as running:
        yield running


@pytest.mark.parametrize(("fault", "reason"), FAULTS.values(), ids=FAULTS)
def test_a_passing_fault_is_tried_again_and_logged(
    api: Api,
    proxy: Proxy,
    fault: Fault,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(web, "READ_TIMEOUT", 0.3)
    api.put("/orders", ROWS)
    orders = source(f"{proxy.url}/orders")
    with caplog.at_level(logging.WARNING):
        proxy.reset(None, fault, fault)  # HEAD has no body to be truncated
        (found,) = orders.batches()
        assert orders.read(found).equals(FRAME)
    lines = [each.getMessage() for each in caplog.records if each.name == retries.__name__]
    assert [line[:8] for line in lines] == ["try 1 of", "try 2 of"]
    for line in lines:
        assert re.search(rf"demo: source: {proxy.url}/orders.* {reason}", line)
    assert [method for method, _ in proxy.asked] == ["HEAD", "GET", "GET", "GET"]


@pytest.mark.parametrize(
    "asked", ["30", format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)], ids=["seconds", "date"]
)
def test_a_server_that_asks_to_be_left_alone_is_for_so_long_and_up_to_a_limit(
    proxy: Proxy, api: Api, asked: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(retries, "LONGEST_ASKED_WAIT", 0.2)
    api.put("/orders", ROWS)
    proxy.reset(answer(429, Retry_After=asked))
    assert len(source(f"{proxy.url}/orders").batches()) == 1
    assert "next in 0.2 s" in caplog.text


def test_a_fault_that_stays_ends_after_all_tries_with_its_reason(proxy: Proxy) -> None:
    proxy.reset(*[answer(503)] * 9)
    with pytest.raises(SourceError, match=rf"/orders: 503 .*\(tried {retries.MOST_TRIES} times\)"):
        source(f"{proxy.url}/orders").batches()
    assert len(proxy.asked) == retries.MOST_TRIES


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, None, 2], pl.Series([1, None, 2], dtype=pl.Int64)),
        ([1, 2.5], pl.Series([1.0, 2.5])),
        ([2**53 + 1, 2.5], pl.Series(["9007199254740993", "2.5"])),
        ([2**63], pl.Series(["9223372036854775808"])),
        ([True, None], pl.Series([True, None])),
        ([True, 1, "x"], pl.Series(["true", "1", "x"])),
        ([None, None], pl.Series([None, None], dtype=pl.String)),
        ([{"a": [1, "ä"]}, [1]], pl.Series(['{"a": [1, "ä"]}', "[1]"])),
    ],
)
def test_a_column_of_json_keeps_its_type_where_it_has_one_and_is_text_else(values: list[Any], expected: Any) -> None:
    rows = json.loads(json.dumps([{"other": 0, "value": each} for each in values]))
    assert frame_of(rows)["value"].equals(expected.alias("value"), check_dtypes=True)


def test_a_key_that_is_missing_is_null() -> None:
    assert frame_of([{"a": 1}, {"b": "x"}]).rows() == [(1, None), (None, "x")]
