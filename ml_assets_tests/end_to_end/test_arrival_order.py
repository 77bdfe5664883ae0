"""Any order and any repetition of arrivals ends in the same tables, and those hold what the files say.

Files touch several days and days several files; rows are late, re-sent days later with other values, broken, of no
time, or of a day before the first; files are replaced, rewritten, removed, half written and landed again, and between
all that the tables are refreshed or not. One side hands rows on from step to step, the other reads them from the lake.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_assets.lake import PARTITION
from ml_assets.records import read_latest
from ml_assets_tests.rides import DATA, DAYS, TABLES, Content, Row, noon, place


@dataclass(frozen=True)
class File:
    """One name in one of the source's folders, and what is there one after the other; None once it is removed."""

    name: str
    contents: list[Content]

    @property
    def rows(self) -> list[Row]:
        """The rows that it has in the end."""
        last = self.contents[-1]
        return last if isinstance(last, list) else []


def row(day: st.SearchStrategy[int | None]) -> st.SearchStrategy[Row]:
    """Of few rides, so that many are sent again: on their day with other values, or on another day."""
    cells = {
        "ride": st.sampled_from(["a", "b"]),
        "at": day.map(noon),
        "km": st.sampled_from([1.0, 2.5, None, -1.0]),
        "known": st.sampled_from([1, 3, 4, 9]).map(noon),
        "late": st.sampled_from([True, False, None]),
    }
    return st.fixed_dictionaries(cells)


@st.composite
def rows(draw: st.DrawFn) -> list[Row]:
    """What a file may hold: some rows, of which one has a day at least. A file without any is refused."""
    others = draw(st.lists(row(st.sampled_from([*DAYS, None, 0])), max_size=4))
    found = draw(st.permutations([draw(row(st.sampled_from(DAYS))), *others]))
    if draw(st.booleans()):  # a column that the contract does not know
        found = [each | {"note": str(number)} for number, each in enumerate(found)]
    return found


@st.composite
def files(draw: st.DrawFn, folder: str, kinds: Sequence[str], most: int) -> list[File]:
    found = []
    for number in range(draw(st.integers(1, most))):
        earlier: list[Content] = draw(st.lists(st.one_of(rows(), st.sampled_from([None, b"PAR1 cut"])), max_size=2))
        last: Content = draw(st.one_of(rows(), rows(), rows(), st.none()))
        times = draw(st.integers(1, 2))
        found.append(File(f"{folder}/{number}{draw(st.sampled_from(kinds))}", [*earlier, *[last] * times]))
    return found


@dataclass(frozen=True)
class History:
    """How files arrive: `order` names the file of which the next content comes, with the refreshes after it."""

    files: list[File]
    order: list[tuple[File, int]]

    @property
    def same(self) -> tuple[str, ...]:
        """Tables that the arrivals do not decide about. Where a folder has typed files and text, a column of raw and of
        rejected rows becomes text and stays so.
        """
        mixed = len({Path(file.name).suffix for file in self.files}) > 1
        return ("cleaned_data", "outcomes", "features") if mixed else TABLES


@st.composite
def histories(draw: st.DrawFn, own_outcomes: bool) -> History:
    kinds = draw(st.sampled_from([[".parquet"], [".csv"], [".parquet", ".csv"]]))
    found = draw(files("rides", kinds, 4)) + (draw(files("outcomes", kinds, 2)) if own_outcomes else [])
    numbers = draw(st.permutations([number for number, each in enumerate(found) for _ in each.contents]))
    refreshes = st.sampled_from([0, 0, 1, 2])
    return History(found, [(found[number], draw(refreshes)) for number in numbers])


def days(counts: Iterable[str]) -> dict[str, int]:
    return dict(Counter(counts))


def expected(found: list[File]) -> tuple[dict[str, int], dict[tuple[str, datetime], float | None]]:
    """Raw rows by day, and kilometres of each cleaned ride, by the words of the documentation and not by its code."""
    raw: list[str] = []
    cleaned = {}
    for file in sorted(found, key=lambda each: each.name):
        inside = [each["at"] for each in file.rows if each["at"] and noon(DAYS[0]) <= each["at"] <= noon(DAYS[-1])]
        for each in file.rows:
            raw.append(f"{each['at'] if each['at'] in inside else min(inside):%Y-%m-%d}")
            if each["at"] in inside and each["km"] != -1.0:
                cleaned[each["ride"], each["at"]] = each["km"]
    return days(raw), cleaned


def check(history: History, *, own_outcomes: bool) -> None:
    with place(own_outcomes) as at_once, place(own_outcomes, apart=True) as by_and_by:
        for file in history.files:
            at_once.put(file.name, file.contents[-1])
        at_once.refresh()
        coming = {file.name: iter(file.contents) for file in history.files}
        for file, refreshes in history.order:
            by_and_by.put(file.name, next(coming[file.name]))
            for _ in range(refreshes):
                by_and_by.refresh()
        by_and_by.refresh()

        tables, others = by_and_by.tables(), at_once.tables()
        contents, other_contents = by_and_by.contents(), at_once.contents()
        for table in history.same:
            assert tables[table] == others[table], table
            assert contents.get(table) == other_contents.get(table), table

        raw, cleaned = expected([file for file in history.files if file.name.startswith("rides")])
        assert days(each[PARTITION] for each in tables["raw_data"]) == raw, "no row missing or double"
        assert {(each["ride"], each["at"]): each.get("km") for each in tables["cleaned_data"]} == cleaned
        assert len(tables["cleaned_data"]) == len(tables["features"]) == len(cleaned)

        latest = read_latest(by_and_by.lake, "rides")
        for asset in DATA:
            held = {day: record.rows for day, record in latest.of(asset).items() if record.rows}
            assert held == days(each[PARTITION] for each in tables[asset]), f"records of {asset} say what it holds"
        for day, record in latest.of("cleaned_data").items():
            gone = record.details["rejected"] + record.details["duplicates"]
            assert record.details["raw"] == raw.get(day, 0) == record.rows + gone, "rows are conserved"

        versions = by_and_by.versions()
        assert by_and_by.refresh() == [], "nothing is due"
        assert by_and_by.versions() == versions, "and nothing was written"
        for file in history.files:
            by_and_by.put(file.name, file.contents[-1])
        by_and_by.refresh()
        again = by_and_by.versions()
        assert {each: again[each] for each in DATA} == {each: versions[each] for each in DATA}, "the same files again"
        assert by_and_by.refresh() == []


OFTEN = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))


@OFTEN
@given(history=histories(own_outcomes=False))
def test_any_arrival_of_rows_with_their_outcomes_ends_in_the_same_tables(history: History) -> None:
    check(history, own_outcomes=False)


@OFTEN
@given(history=histories(own_outcomes=True))
def test_any_arrival_of_rows_and_of_outcomes_after_them_ends_in_the_same_tables(history: History) -> None:
    check(history, own_outcomes=True)


def test_a_day_has_the_same_content_beside_days_of_another_format() -> None:
    row = {"ride": "a", "at": noon(1), "km": 1.0, "known": noon(2), "late": True}
    with place(own_outcomes=False) as alone, place(own_outcomes=False) as beside:
        for each in (alone, beside):
            each.put("rides/0.parquet", [row])
        beside.put("rides/1.csv", [row | {"at": noon(2)}])
        for each in (alone, beside):
            each.refresh()
        for asset in DATA:
            first = alone.contents()[asset]
            assert {day: beside.contents()[asset][day] for day in first} == first, asset
