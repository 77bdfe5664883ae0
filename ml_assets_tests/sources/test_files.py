import gzip
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ml_assets.errors import SourceError
from ml_assets.sources import Source, open_source
from ml_assets.sources.patterns import matches
from ml_assets.spec.sources import FilesSource


def source(uri: str, **options: Any) -> Source:
    return open_source(FilesSource.model_validate({"kind": "files", "uri": uri} | options), "demo: source")


FRAME = pl.DataFrame({"id": [1, 2], "zone": ["a", "b"]})


def test_parquet_and_json_lines_keep_their_types_and_csv_stays_text(tmp_path: Path) -> None:
    FRAME.write_parquet(tmp_path / "1.parquet")
    FRAME.write_ndjson(tmp_path / "2.jsonl")
    (tmp_path / "3.csv").write_text("id,zone\n 1,a\n2,\n\n")
    (tmp_path / "4.csv.gz").write_bytes(gzip.compress(b"id,zone\n1,a\n"))
    found = source(f"{tmp_path}/*")
    parquet, jsonl, csv, zipped = (found.read(each) for each in found.batches())
    assert parquet.equals(FRAME)
    assert jsonl.equals(FRAME)
    assert csv.rows() == [(" 1", "a"), ("2", None)]
    assert zipped.rows() == [("1", "a")]


def test_a_batch_is_named_by_its_place_below_the_root_and_its_fingerprint_follows_its_content(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    FRAME.write_parquet(tmp_path / "sub" / "1.parquet")
    (tmp_path / "sub" / ".2.parquet.part").write_text("half written")
    found = source(f"{tmp_path}/**/*")
    (before,) = found.batches()
    assert before.id == "sub/1.parquet"
    assert found.batches() == [before]
    FRAME.head(1).write_parquet(tmp_path / "sub" / "1.parquet")
    assert found.batches()[0].fingerprint != before.fingerprint


def test_a_missing_root_is_an_error_and_an_empty_one_is_quiet(tmp_path: Path) -> None:
    assert source(f"{tmp_path}/*.csv").batches() == []
    with pytest.raises(SourceError, match=r"demo: source: the folder .*/nowhere does not exist"):
        source(f"{tmp_path}/nowhere/*.csv").batches()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("1.csv", b"", "empty"),
        ("1.parquet", b"", "empty"),
        ("1.parquet", b"PAR1 but not really", "cannot be read as parquet"),
        ("1.csv.gz", gzip.compress(b"id,zone\n" + b"1,a\n" * 999, mtime=0)[:-20], "cannot be read as csv"),
        ("1.csv", b"id,zone\n1,a,b,c\n", "cannot be read as csv"),
        ("1.csv", b"id,zone\n1,\xff\xfe\n", "is not written in utf-8: line 2 holds"),
        ("1.csv.gz", gzip.compress(b"id,zone\n1,a\n2,\xff\n", mtime=0), r"line 3 holds b'\\xff'"),
        ("1.jsonl", b'{"id": 1}\n{"id": "\xff"}\n', "is not written in utf-8: line 2 holds"),
        ("1.csv", b"id,zone,id\n1,a,2\n", "two columns have the name 'id'"),
        ("1.csv", b"id, id \n1,2\n", "two columns have the name 'id'"),
        ("1.jsonl", b"{broken", "cannot be read as jsonl"),
        ("1.xlsx", b"x", "tells no format"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    found = source(f"{tmp_path}/*")
    with pytest.raises(SourceError, match=said) as caught:
        found.read(found.batches()[0])
    assert str(tmp_path / name) in str(caught.value)


def test_a_csv_without_header_takes_the_declared_names_and_their_number_must_fit(tmp_path: Path) -> None:
    (tmp_path / "1.data").write_text("1;a\n2;b\n")
    options = {"csv": {"header": False, "separator": ";", "columns": ["id", "zone"]}}
    found = source(f"{tmp_path}/*", **options)
    assert found.read(found.batches()[0]).columns == ["id", "zone"]
    options["csv"]["columns"] = ["id", "zone", "more"]
    wrong = source(f"{tmp_path}/*", **options)
    with pytest.raises(SourceError, match="columns"):
        wrong.read(wrong.batches()[0])


@pytest.mark.parametrize(
    ("key", "pattern", "expected"),
    [
        ("orders/1.parquet", "orders/*.parquet", True),
        ("orders/old/1.parquet", "orders/*.parquet", False),
        ("orders/old/1.parquet", "orders/**/*.parquet", True),
        ("orders/1.parquet", "orders/**/*.parquet", True),
        ("orders/_SUCCESS", "orders/*", False),
        ("orders/.1.parquet.part", "orders/*", False),
        ("orders/1x.parquet", "orders/1?.parquet", True),
    ],
)
def test_object_keys_match_as_paths_do(key: str, pattern: str, expected: bool) -> None:
    assert matches(key, pattern) == expected


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
@pytest.mark.parametrize("encoding", ["utf8", "utf-8-sig", "latin-1", "cp1252", "utf-16"])
def test_csv_is_read_in_its_encoding_packed_or_not(tmp_path: Path, packed: str, encoding: str) -> None:
    import pyarrow as pa

    content = "id,straße\n1,Köln\n".encode(encoding)
    pack = {"": bytes, ".gz": gzip.compress, ".zst": lambda it: pa.compress(it, codec="zstd", asbytes=True)}[packed]
    (tmp_path / f"1.csv{packed}").write_bytes(pack(content))
    found = source(f"{tmp_path}/*", csv={"encoding": encoding})
    (batch,) = found.batches()
    assert found.read(batch).to_dicts() == [{"id": "1", "straße": "Köln"}]
    assert found.read(batch, ["id"]).to_dicts() == [{"id": "1"}]


@pytest.mark.parametrize(
    ("encoding", "content", "said"),
    [
        ("cp1252", b"id,zone\n1,a\n2,\x81\n", r"not written in cp1252: line 3 holds b'\\x81'"),
        ("ascii", b"id,zone\n1,\xe4\n", r"not written in ascii: line 2 holds b'\\xe4'"),
        ("utf-16", "id\n1\n".encode("utf-16")[:-1], "not written in utf-16"),
        ("utf8", "id\n1\n".encode("utf-16"), r"not written in utf-8: line 1 holds b'\\xff'"),
        ("utf8", "id\n1\n".encode("utf-16-le"), "has damaged characters; is it in another encoding"),
    ],
)
def test_a_wrong_encoding_is_refused_with_file_line_and_bytes(
    tmp_path: Path, encoding: str, content: bytes, said: str
) -> None:
    (tmp_path / "1.csv").write_bytes(content)
    found = source(f"{tmp_path}/*", csv={"encoding": encoding})
    with pytest.raises(SourceError, match=rf"1\.csv .*{said}"):
        found.read(found.batches()[0])


def test_lossy_reading_leaves_a_mark_in_place_of_the_damage(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_bytes(b"id,zone\n1,\xff\n")
    found = source(f"{tmp_path}/*", csv={"encoding": "utf8-lossy"})
    assert found.read(found.batches()[0])["zone"].to_list() == ["\ufffd"]


def test_blanks_around_the_names_of_columns_are_no_part_of_them(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text(" id ,zone \n1,a\n")
    found = source(f"{tmp_path}/*")
    (batch,) = found.batches()
    assert found.read(batch).columns == ["id", "zone"]
    assert found.read(batch, ["zone"]).columns == ["zone"]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("a,b\n1,2\n\n,\n3,\n\n\n", [("1", "2"), (None, None), ("3", None)]),
        ("a,b\n1,2\n\n\n", [("1", "2")]),
        ("a,b\r\n,\r\n1,2\r\n\r\n", [(None, None), ("1", "2")]),
    ],
)
def test_an_empty_line_is_no_row_and_one_of_empty_fields_is(
    tmp_path: Path, text: str, rows: list[tuple[str | None, ...]]
) -> None:
    (tmp_path / "a.csv").write_bytes(text.encode())
    files = source(f"{tmp_path}/*.csv")
    (batch,) = files.batches()
    assert files.read(batch).rows() == rows
