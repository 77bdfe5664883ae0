"""The pointer file: which release serves, and which one is tried beside it."""

import json
from pathlib import Path
from typing import Any

import pytest

from ml_assets.serving.bundle import POINTER
from ml_assets.serving.pointer import Beside, Pointer, read_pointers, write_pointers


def test_what_is_written_is_read_and_the_old_form_is_too(tmp_path: Path) -> None:
    assert read_pointers(tmp_path, "m") is None
    for pointer in (
        Pointer("1-a"),
        Pointer("1-a", Beside("2-b", 5, "salt", by="request")),
        Pointer("1-a", Beside("2-b", shadow=True)),
        Pointer(None, Beside("2-b")),
    ):
        write_pointers(tmp_path, "m", pointer)
        assert read_pointers(tmp_path, "m") == pointer
        assert (read_pointers(tmp_path, "m") or Pointer()).release == pointer.release
    write_pointers(tmp_path, "m", Pointer("3-c"))
    assert json.loads((tmp_path / "m" / POINTER).read_bytes()) == {"release": "3-c"}
    assert read_pointers(tmp_path, "m") == Pointer("3-c")
    write_pointers(tmp_path, "m", None)
    assert list((tmp_path / "m").iterdir()) == []


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ({"release": "1-a", "challenger": {"release": "2-b", "weight": 101}}, "a weight of 101"),
        ({"release": "1-a", "challenger": {"release": "2-b", "weight": -1}}, "a weight of -1"),
        ({"release": "1-a", "challenger": {"release": "2-b", "weight": 5, "shadow": True}}, "a shadow with a weight"),
        ({"release": "1-a", "challenger": {"release": "2-b", "by": "caller"}}, "caller"),
        ({"release": "1-a", "challenger": "2-b"}, "challenger"),
        ({"releases": "1-a"}, "releases"),
        ([], "array"),
    ],
)
def test_what_says_something_else_is_refused(tmp_path: Path, said: Any, what: str) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / POINTER).write_text(json.dumps(said))
    with pytest.raises(ValueError, match=what):
        read_pointers(tmp_path, "m")
