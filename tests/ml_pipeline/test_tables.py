"""Files become text tables with numbered rows, whatever their dialect, or are refused by name."""

import gzip
import zlib
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_pipeline.engine import open_engine
from ml_pipeline.errors import AmbiguousTable, MissingColumns, MissingTables, UnreadableTable
from ml_pipeline.schema import DatasetConfig
from ml_pipeline.tables import RawTables, find_tables, read_tables

HEADERS = "store_sales_header"
HEADER_LINE = "transaction_id,customer_id,transaction_date,total_amount\n"
NO_TARGETS = DatasetConfig(targets={})


def _read(folder: Path, config: DatasetConfig = NO_TARGETS) -> RawTables:
    return read_tables(open_engine(threads=2), folder, config)


def _rows(raw: RawTables, table: str = HEADERS) -> list[dict[str, object]]:
    return raw[table].order_by("row_number").to_pyarrow().to_pylist()


def _header_file(folder: Path, content: bytes, name: str = f"{HEADERS}.csv") -> Path:
    (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_csv_is_read_in_every_dialect(tmp_path: Path, delimiter: str, end: str, encoding: str) -> None:
    lines = [HEADER_LINE.strip(), "00042,é漢,2025-01-31,1.50", "T2,c2,,"]
    text = end.join(lines).replace(",", delimiter) + end
    raw = _read(_header_file(tmp_path, text.encode(encoding)))
    assert _rows(raw) == [
        {"transaction_id": "00042", "customer_id": "é漢", "transaction_date": "2025-01-31", "total_amount": "1.50", "row_number": 1},
        {"transaction_id": "T2", "customer_id": "c2", "transaction_date": None, "total_amount": None, "row_number": 2},
    ]  # fmt: skip
    assert raw.files[HEADERS].delimiter == delimiter
    assert raw.files[HEADERS].rows == 2


def test_quotes_hold_delimiters_quotes_and_line_ends(tmp_path: Path) -> None:
    body = 't1,"a, ""b""\nc",2025-01-31,"1,5"\n\nt2,c2,2025-01-31,2\n'
    raw = _read(_header_file(tmp_path, (HEADER_LINE + body).encode()))
    assert [(row["customer_id"], row["row_number"]) for row in _rows(raw)] == [('a, "b"\nc', 1), ("c2", 2)]


def test_a_file_that_is_not_utf8_is_read_as_windows_1252_with_a_warning(tmp_path: Path) -> None:
    raw = _read(_header_file(tmp_path, (HEADER_LINE + "t1,café €,2025-01-31,1\n").encode("cp1252")))
    assert _rows(raw)[0]["customer_id"] == "café €"
    assert raw.files[HEADERS].encoding == "windows-1252"
    assert "Windows-1252" in raw.files[HEADERS].warnings[0]


def test_a_broken_record_is_set_apart_and_the_others_keep_their_numbers(tmp_path: Path) -> None:
    body = 't1,c1,2025-01-31,1\nt2,c2\nt3,"3" tv",2025-01-31,3\nt4,c4,2025-01-31,4,,\nt5,"open,2025-01-31,5\nt6,c6,d,6,7\nt7,c7,d,7\n'
    raw = _read(_header_file(tmp_path, (HEADER_LINE + body).encode()))
    assert [(row["row_number"], row["transaction_id"]) for row in _rows(raw)] == [
        (1, "t1"),
        (3, "t3"),
        (4, "t4"),
        (7, "t7"),
    ]
    broken = raw.malformed[HEADERS].order_by("row_number").to_pyarrow().to_pylist()
    assert [(row["row_number"], row["fields"]) for row in broken] == [(2, 2), (5, 0), (6, 5)]
    assert broken[0]["text"] == "t2,c2"
    assert raw.files[HEADERS].rows == 7
    assert "3 rows" in raw.files[HEADERS].warnings[0]


def test_row_numbers_follow_the_file_over_many_threads(tmp_path: Path) -> None:
    wide = "c" * 400  # the reader hands out parts of 32 MB to its threads
    body = "".join(f"t{i},{wide},2025-01-31,{i}\n" for i in range(1, 200_001))
    raw = _read(_header_file(tmp_path, (HEADER_LINE + body).encode()))
    rows = raw[HEADERS]
    assert int(rows.filter(rows.total_amount.cast("int64") != rows.row_number).count().execute()) == 0


def test_gzip_is_read_and_half_a_gzip_refused(tmp_path: Path) -> None:
    packed = gzip.compress((HEADER_LINE + "t1,c1,2025-01-31,1\n").encode())
    assert _rows(_read(_header_file(tmp_path, packed, f"{HEADERS}.csv.gz")))[0]["transaction_id"] == "t1"
    _header_file(tmp_path, packed[:20], f"{HEADERS}.csv.gz")
    with pytest.raises(UnreadableTable, match="gzip"):
        _read(tmp_path)


def test_a_gzip_that_lost_its_end_or_a_bit_is_refused_and_not_read_in_part(tmp_path: Path) -> None:
    """Larger than what is looked at for the header; cut so that the last row is whole, as the engine's reader likes it."""
    rows = "".join(f"t{number},c{number * 7919 % 3571},2025-01-31,{number}.50\n" for number in range(20_000))
    text = (HEADER_LINE + rows).encode()
    begin = zlib.compressobj(wbits=31)
    cut_off = begin.compress(text) + begin.flush(zlib.Z_SYNC_FLUSH)
    packed = gzip.compress(text)
    flipped = bytearray(packed)
    flipped[-6] ^= 1
    for damaged in (cut_off, packed[:-1], bytes(flipped)):
        with pytest.raises(UnreadableTable, match=r"cut off or damaged"):
            _read(_header_file(tmp_path, damaged, f"{HEADERS}.csv.gz"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"PK\x03\x04rest", "Excel workbook"),
        (b"PAR1rest", "Parquet"),
        (b"\x1f\x8brest", "gzip"),
        (b"a,b\x00c\n", "binary"),
    ],
)
def test_a_file_that_is_no_csv_is_refused_by_name(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(UnreadableTable, match=reason) as refused:
        _read(_header_file(tmp_path, content))
    assert f"{HEADERS}.csv" in str(refused.value)


def test_a_file_that_is_no_parquet_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UnreadableTable, match=r"store_sales_header\.parquet"):
        _read(_header_file(tmp_path, b"no parquet at all", f"{HEADERS}.parquet"))


def test_a_table_of_only_a_header_line_has_no_rows(tmp_path: Path) -> None:
    assert _rows(_read(_header_file(tmp_path, HEADER_LINE.strip().encode()))) == []


def test_native_parquet_columns_lose_no_digit(tmp_path: Path) -> None:
    table = pa.table(
        {
            "transaction_id": pa.array([2**60 + 1, 7], pa.int64()),
            "customer_id": pa.array([12345.0, 1e16]),
            "transaction_date": pa.array([datetime(2025, 1, 31, 15), None], pa.timestamp("us", tz="UTC")),
            "total_amount": pa.array([0.1, 1e-7]),
            "store_id": pa.array([b"s1", None], pa.binary()),
            "note": pa.array([Decimal("1.50"), None]),
        }
    )
    pq.write_table(table, tmp_path / f"{HEADERS}.parquet")
    first, second = _rows(_read(tmp_path))
    assert first["transaction_id"] == "1152921504606846977"
    assert (first["customer_id"], second["customer_id"]) == ("12345", "10000000000000000")
    assert first["transaction_date"] == "2025-01-31 15:00:00+00"
    assert (first["total_amount"], float(str(second["total_amount"]))) == ("0.1", 1e-7)
    assert (first["store_id"], first["note"]) == ("s1", "1.50")
    assert (first["row_number"], second["row_number"]) == (1, 2)


def test_columns_are_found_without_case_and_outer_blanks_or_by_their_mapping(tmp_path: Path) -> None:
    _header_file(tmp_path, b" Transaction_ID ,client,DATE OF SALE,total_amount,colour\nt1,c1,2025-01-31,1,red\n")
    mapped = {HEADERS: {"customer_id": "Client", "transaction_date": "Date of sale"}}
    raw = _read(tmp_path, DatasetConfig(targets={}, columns=mapped))
    row = _rows(raw)[0]
    assert (row["transaction_id"], row["customer_id"], row["transaction_date"]) == ("t1", "c1", "2025-01-31")
    assert raw.files[HEADERS].extra == ("colour",)
    assert raw.files[HEADERS].columns["customer_id"] == "client"


def test_an_exact_name_wins_over_one_in_another_case(tmp_path: Path) -> None:
    _header_file(tmp_path, b"transaction_id,CUSTOMER_ID,customer_id,transaction_date,total_amount\nt1,no,yes,d,1\n")
    row = _rows(_read(tmp_path))[0]
    assert row["customer_id"] == "yes"
    assert row["CUSTOMER_ID_2"] == "no"


def test_personal_values_never_enter_the_engine(tmp_path: Path) -> None:
    _header_file(
        tmp_path,
        b"transaction_id,customer_id,transaction_date,total_amount,customer_phone,Contact Mail\nt1,c1,d,1,5550101,\n",
    )
    row = _rows(_read(tmp_path))[0]
    assert (row["customer_phone"], row["Contact Mail"]) == ("(redacted)", None)


def test_a_broken_record_of_a_table_with_personal_columns_is_redacted(tmp_path: Path) -> None:
    _header_file(tmp_path, (HEADER_LINE.strip() + ",customer_phone\nt1,c1,d,1,5550101\nt2,5550102\n").encode())
    raw = _read(tmp_path)
    assert raw.malformed[HEADERS].to_pyarrow()["text"].to_pylist() == ["(redacted)"]


def test_two_files_for_one_table_are_named(tmp_path: Path) -> None:
    _header_file(tmp_path, HEADER_LINE.encode())
    _header_file(tmp_path, HEADER_LINE.encode(), "Store_Sales_Header.CSV.GZ")
    with pytest.raises(AmbiguousTable, match=r"Store_Sales_Header\.CSV\.GZ and store_sales_header\.csv"):
        find_tables(tmp_path)


def test_everything_that_is_missing_is_said_in_one_message(tmp_path: Path) -> None:
    (tmp_path / "products.csv").write_text("product_id,name\n1,2\n")
    (tmp_path / "sales.xlsx").write_text("x")
    with pytest.raises(MissingTables) as refused:
        _read(tmp_path, DatasetConfig())
    for part in (HEADERS, "store_sales_line_items", "'product_category' is missing", "sales.xlsx", "[columns.<table>]"):
        assert part in str(refused.value)


def test_all_missing_columns_are_said_in_one_message(tmp_path: Path) -> None:
    _header_file(tmp_path, b"id,customer_id,transaction_date\n1,2,3\n")
    mapped = {HEADERS: {"transaction_date": "sold_at"}}
    with pytest.raises(MissingColumns) as refused:
        _read(tmp_path, DatasetConfig(targets={}, columns=mapped))
    for part in ("'transaction_id' is missing", "'total_amount' is missing", "'sold_at'", "'id'"):
        assert part in str(refused.value)


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    _header_file(tmp_path, b"transaction_id,customer_id,customer_id,transaction_date,total_amount\n1,2,3,4,5\n")
    with pytest.raises(MissingColumns, match="2 columns are called 'customer_id'"):
        _read(tmp_path)


def test_totals_are_not_needed_where_there_are_lines(tmp_path: Path) -> None:
    _header_file(tmp_path, b"transaction_id,customer_id,transaction_date\n1,2,3\n")
    (tmp_path / "store_sales_line_items.csv").write_text(
        "transaction_id,product_id,quantity,line_item_amount\n1,2,3,4\n"
    )
    assert set(_read(tmp_path).tables) == {HEADERS, "store_sales_line_items"}
