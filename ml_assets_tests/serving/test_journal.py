"""The prediction log's files: whatever happens to one, only true entries are read, and what is lost is counted."""

from pathlib import Path

import hypothesis.strategies as st
from hypothesis import given, settings

from ml_assets.serving.journal import Entry, Read, Writing, encode, frame, read_frames, segments

MARK = b"\x01marked!"
BODIES = (
    st.binary(max_size=60)
    | st.just(MARK + bytes(40))
    | st.just(frame(MARK[::-1], 0, [encode(Entry(1, "x", 200, "", "", 0.0))]))
)
FRAMES = st.lists(st.lists(BODIES, min_size=1, max_size=4), min_size=1, max_size=5)


def entry(number: int, body: bytes = b"") -> Entry:
    return Entry(
        number, f"id-{number}", 200, "1", "1-abc", 0.001 * number, body=body, looked_up=[[1.5, None], ["x", "y"]]
    )


def made_of(frames: list[list[bytes]]) -> tuple[bytes, list[Entry]]:
    """A segment's content, and its entries."""
    content, entries = b"", []
    for bodies in frames:
        some = [entry(len(entries) + number, body) for number, body in enumerate(bodies)]
        content += frame(MARK, len(entries), [encode(each) for each in some])
        entries += some
    return content, entries


def ends_of(frames: list[list[bytes]]) -> list[int]:
    """Where each frame ends."""
    return [len(made_of(frames[: number + 1])[0]) for number in range(len(frames))]


def require_true(read: Read, entries: list[Entry]) -> None:
    assert all(each == entries[each.at] for each in read.entries), "an entry that was never written"
    assert [each.at for each in read.entries] == sorted({each.at for each in read.entries}), "doubled, or out of order"


@settings(max_examples=150, deadline=None)
@given(FRAMES, st.data())
def test_a_segment_that_ends_anywhere_gives_its_whole_frames(frames: list[list[bytes]], data: st.DataObject) -> None:
    content, entries = made_of(frames)
    assert read_frames(content, MARK) == Read(entries)
    end = data.draw(st.integers(0, len(content)))
    read = read_frames(content[:end], MARK, len(entries))
    require_true(read, entries)
    assert read.entries == entries[: len(read.entries)]
    assert len(read.entries) + read.lost == len(entries)
    whole = [each for each in ends_of(frames) if each <= end]
    assert read.torn == end - max(whole, default=0)


@settings(max_examples=200, deadline=None)
@given(FRAMES, st.data())
def test_a_changed_byte_takes_its_frame_with_it_and_nothing_else(
    frames: list[list[bytes]], data: st.DataObject
) -> None:
    content, entries = made_of(frames)
    place, bits = data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(1, 255))
    damaged = bytearray(content)
    damaged[place] ^= bits
    read = read_frames(bytes(damaged), MARK, len(entries))
    require_true(read, entries)
    hit = next(number for number, end in enumerate(ends_of(frames)) if place < end)
    assert read.lost == len(frames[hit])
    assert len(read.entries) == len(entries) - read.lost
    assert read.torn > 0


def test_what_was_lost_on_the_way_is_a_gap_in_the_numbers(tmp_path: Path) -> None:
    segment = Writing(tmp_path, "2026-01-31", 0.0, durable=True)
    segment.write([encode(entry(0))], lost=2)
    segment.write([encode(entry(1)), encode(entry(2))])
    segment.sync()
    [found] = segments(tmp_path)
    assert (found.day, found.count, found.finished()) == ("2026-01-31", None, False)
    assert found.read() == Read([entry(0), entry(1), entry(2)], lost=2)
    segment.close(lost=3)
    assert found.finished()
    assert found.read().entries == [entry(0), entry(1), entry(2)], "it was closed since, and has another name"
    [closed] = segments(tmp_path)
    assert (closed.name, closed.count) == (found.name, 8)
    assert closed.read() == Read([entry(0), entry(1), entry(2)], lost=5)
    assert closed.path.stat().st_mode & 0o077 == 0, "requests are nobody else's business"


def test_a_write_that_failed_leaves_whole_frames_and_an_empty_segment_no_file(tmp_path: Path) -> None:
    segment = Writing(tmp_path, "2026-01-31", 0.0, durable=False)
    segment.write([encode(entry(0))])
    with segment.path.open("ab") as torn:
        torn.write(b"half a frame")
    segment.abandon()
    [found] = segments(tmp_path)
    assert found.finished(), "nobody writes to it"
    assert found.read() == Read([entry(0)])
    Writing(tmp_path / "other", "2026-01-31", 0.0, durable=False).close()
    assert segments(tmp_path / "other") == segments(tmp_path / "nothing") == []
