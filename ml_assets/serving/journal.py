"""The files of the prediction log: segments of frames. The server writes them, the asset `predictions` reads them.

<home>/predictions/journal/<model>/<day>-<time>-<mark>.open         a server writes to it, or died while it did
<home>/predictions/journal/<model>/<day>-<time>-<mark>.<n>.closed   finished, with n entries

A segment holds requests that were received on one day (UTC). A frame has a head of 28 bytes: the segment's mark (8
random bytes, so that nothing that a caller sends can look like a frame), the number of its first entry (8), how many it
has (4), the length of its body (4), and the CRC-32 of all that and of the body (4); then the entries, as one array of
MessagePack. Numbers count every request, so that a gap is what was lost: dropped, not written, or damaged since.
"""

import fcntl
import os
import secrets
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

OPEN, CLOSED = ".open", ".closed"
FRAME_ENTRIES = 128  # what one damaged byte can take with it
_HEAD = struct.Struct(">8sQIII")
_CHECKED = struct.Struct(">8sQII")  # the part of the head that the CRC is over
_ARRAY = struct.Struct(">BI")  # MessagePack's array 32


class Entry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One request and what became of it.

    Attributes:
        at: when it was received, in microseconds since 1970, UTC.
        id: of the request.
        seconds: from its first byte to its answer; NaN where nobody measured it.
        form: `json` or `csv`, what the body is.
        body, answer: the bytes received, and the answer as JSON; empty for a request that was refused: who is refused
            may have sent anything, and nobody decided to keep it.
        given: the caller's own id of the only row, where it came in a header.
        looked_up: for each looked-up column of the release its values, one per row, as the online store keeps them.
        reason: of a refused request what kind of error it was; `column`: of which column or feature.
    """

    at: int
    id: str
    status: int
    version: str
    release: str
    seconds: float
    form: str = "json"
    body: bytes = b""
    answer: bytes = b""
    given: str | None = None
    looked_up: list[list[Any]] | None = None
    reason: str = ""
    column: str | None = None


encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Entry]).decode


def frame(mark: bytes, first: int, entries: Sequence[bytes]) -> bytes:
    """Encoded entries as one frame of a segment."""
    parts = [_ARRAY.pack(0xDD, len(entries)), *entries]
    checked = _CHECKED.pack(mark, first, len(entries), sum(map(len, parts)))
    crc = zlib.crc32(checked)
    for each in parts:  # of more than 5 KiB at once zlib lets go of the GIL, and the event loop waits to get it back
        crc = zlib.crc32(each, crc)
    return b"".join((checked, crc.to_bytes(4, "big"), *parts))


@dataclass(frozen=True)
class Read:
    """What a segment holds.

    Attributes:
        entries: in the order in which they were written.
        lost: how many more there were, as far as one can know: of a segment that is not closed its end is not known.
        torn: bytes that belong to no whole frame.
    """

    entries: list[Entry]
    lost: int = 0
    torn: int = 0


def read_frames(content: bytes, mark: bytes, count: int | None = None) -> Read:
    """The entries of all whole frames, whatever else is in between.

    Args:
        count: how many entries there were, if that is known.
    """
    entries: list[Entry] = []
    position, expected, lost, torn = 0, 0, 0, 0
    while position < len(content):
        found = _frame_at(content, position, mark)
        if found is None or found[0] < expected:
            follows = content.find(mark, position + 1)
            follows = len(content) if follows < 0 else follows
            torn += follows - position
            position = follows
            continue
        first, some, position = found
        lost += first - expected
        expected = first + len(some)
        entries.extend(some)
    return Read(entries, lost + max(0, (count or 0) - expected), torn)


def _frame_at(content: bytes, position: int, mark: bytes) -> tuple[int, list[Entry], int] | None:
    """Number of the first entry, the entries, and where the frame ends; None if no whole frame is there."""
    start = position + _HEAD.size
    if len(content) < start:
        return None
    said, first, count, length, crc = _HEAD.unpack_from(content, position)
    body = content[start : start + length]
    if said != mark or len(body) < length:
        return None
    if zlib.crc32(body, zlib.crc32(content[position : position + _CHECKED.size])) != crc:
        return None
    try:
        entries = _decode(body)
    except msgspec.DecodeError:  # whole, and written by another version of this package
        return None
    return (first, entries, start + length) if len(entries) == count else None


@dataclass(frozen=True)
class Segment:
    """One file of a journal, as it was found.

    Attributes:
        name: without its ending, which changes when it is closed.
        size: in bytes; an open one may grow.
        count: number of entries of a closed one.
    """

    path: Path
    name: str
    size: int
    count: int | None

    @property
    def day(self) -> str:
        """The day (UTC) on which its requests were received."""
        return self.name[:10]

    def finished(self) -> bool:
        """Whether nobody writes to it any more."""
        if self.count is not None:
            return True
        try:
            with self.path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except FileNotFoundError:  # closed just now
            return True
        return True

    def read(self) -> Read:
        """What it held when it was found; a closed one is what it was to hold.

        Raises:
            FileNotFoundError: if it was removed since.
        """
        try:
            content = self._content(self.path)
        except FileNotFoundError:
            closed = list(self.path.parent.glob(f"{self.name}.*{CLOSED}"))  # since
            content = self._content(closed[0] if closed else self.path)
        return read_frames(content, _mark_of(self.name), self.count)

    def _content(self, path: Path) -> bytes:
        with path.open("rb") as file:
            return file.read(self.size)


def segments(folder: Path) -> list[Segment]:
    """The segments of a model's journal, in the order of their names. Other files are none of ours."""
    found: dict[str, Segment] = {}
    for path in folder.glob("*.*") if folder.is_dir() else ():
        name, _, rest = path.name.partition(".")
        count = rest.removesuffix(CLOSED)
        if f".{rest}" != OPEN and not (rest.endswith(CLOSED) and count.isdigit()):
            continue
        try:
            size = path.stat().st_size
        except FileNotFoundError:  # closed just now, and listed again under its other name, or at the next look
            continue
        if name not in found or found[name].count is None:
            found[name] = Segment(path, name, size, None if rest == OPEN[1:] else int(count))
    return [found[name] for name in sorted(found)]


def _mark_of(name: str) -> bytes:
    return bytes.fromhex(name.rpartition("-")[2])


class Writing:
    """A segment that this process writes to. Nobody else does: it holds a lock on it until it is closed, or dies.

    Attributes:
        size: of the whole frames that it holds.
        next: number of the next entry.
        opened: by `time.monotonic`, as the caller gives it.
    """

    def __init__(self, folder: Path, day: str, opened: float, *, durable: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        mark = secrets.token_bytes(8)
        self.path = folder / f"{day}-{datetime.now(UTC):%H%M%S}-{mark.hex()}{OPEN}"
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._mark = mark
        self.size = self.next = 0
        self.opened = opened
        if durable:
            try:
                _sync(folder)
            except OSError:
                self.abandon()
                raise

    def write(self, entries: Sequence[bytes], lost: int = 0) -> None:
        """Append encoded entries, in as many frames as it takes and with one call.

        Args:
            lost: how many were lost since the last frame.

        Raises:
            OSError: if the disk does not take them; then the segment is to be abandoned.
        """
        first = self.next + lost
        frames = [
            frame(self._mark, first + start, entries[start : start + FRAME_ENTRIES])
            for start in range(0, len(entries), FRAME_ENTRIES)
        ]
        content = memoryview(b"".join(frames))
        size = len(content)
        while content:
            content = content[os.write(self._file, content) :]
        self.size += size
        self.next = first + len(entries)

    def sync(self) -> None:
        """Return once everything written is on the disk.

        Raises:
            OSError: if it may not be.
        """
        os.fdatasync(self._file)

    def close(self, lost: int = 0) -> None:
        """Give it the name of a finished segment; the one that holds nothing is removed."""
        if not self.size and not lost:
            self.path.unlink(missing_ok=True)
        else:
            self.path.rename(self.path.with_suffix(f".{self.next + lost}{CLOSED}"))
        os.close(self._file)

    def abandon(self) -> None:
        """Leave it as it was before a write that failed, as far as the disk allows; it stays open, without a writer."""
        try:
            os.ftruncate(self._file, self.size)
            if not self.size:
                self.path.unlink(missing_ok=True)
        except OSError:
            pass  # what is torn is recognised
        finally:
            os.close(self._file)


def _sync(folder: Path) -> None:
    """Bring the folder's list of files to the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
