"""Builders of odd and hostile files: workbooks part by part, archives and gzip files that unpack to far more than they are."""

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape, quoteattr

import pyarrow as pa
import pyarrow.parquet as pq

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"
MB = 1 << 20


def cell(
    reference: str, value: object = None, *, kind: str = "inlineStr", inner: str | None = None, style: int = 0
) -> str:
    """A cell of a sheet's XML; inner: its content as XML, instead of a value."""
    if inner is None and isinstance(value, str) and kind == "inlineStr":
        inner = f'<is><t xml:space="preserve">{escape(value)}</t></is>'
    elif inner is None:
        inner, kind = f"<v>{value}</v>", "n" if kind == "inlineStr" else kind
    return f'<c r="{reference}" s="{style}" t="{kind}">{inner}</c>'


def sheet_xml(*rows: str, first: int = 1, head: str = "", tail: str = "") -> str:
    """A sheet of rows, each its cells as XML."""
    body = "".join(f'<row r="{number}">{cells}</row>' for number, cells in enumerate(rows, first))
    return f'<worksheet xmlns="{MAIN}">{head}<sheetData>{body}</sheetData>{tail}</worksheet>'


def simple_sheet(*rows: Sequence[object], first: int = 1) -> str:
    """A sheet of text and numbers from column A on."""
    return sheet_xml(
        *(
            "".join(cell(f"{chr(65 + column)}{number}", value) for column, value in enumerate(row) if value is not None)
            for number, row in enumerate(rows, first)
        ),
        first=first,
    )


def workbook_parts(
    sheets: Mapping[str, str],
    *,
    shared: str | None = None,
    styles: str = "",
    attributes: str = "",
    kind: str = "worksheet",
) -> dict[str, str]:
    """The parts of a workbook; sheets: XML by name. attributes: on every sheet's entry, such as its state."""
    entries = "".join(
        f'<sheet name={quoteattr(name)} sheetId="{number}" r:id="rId{number}" {attributes if number == 1 else ""}/>'
        for number, name in enumerate(sheets, 1)
    )
    relations = [(f"rId{number}", kind, f"{kind}s/sheet{number}.xml") for number in range(1, len(sheets) + 1)]
    extra = {"sharedStrings": shared, "styles": styles}
    relations += [(f"x{name}", name, f"{name}.xml") for name, xml in extra.items() if xml]
    told = "".join(f'<Relationship Id="{a}" Type="{OFFICE}/{b}" Target="{c}"/>' for a, b, c in relations)
    return {
        "[Content_Types].xml": f'<Types xmlns="{PACKAGE}/content-types"><Default Extension="xml" ContentType="application/xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{PACKAGE}/relationships"><Relationship Id="r" Type="{OFFICE}/officeDocument" '
        'Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{MAIN}" xmlns:r="{OFFICE}"><sheets>{entries}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{PACKAGE}/relationships">{told}</Relationships>',
        **{f"xl/{kind}s/sheet{number}.xml": xml for number, xml in enumerate(sheets.values(), 1)},
        **{f"xl/{name}.xml": xml for name, xml in extra.items() if xml},
    }


def archive(parts: Mapping[str, str | bytes]) -> bytes:
    """Parts in a zip file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in parts.items():
            made.writestr(name, content)
    return buffer.getvalue()


def book(*rows: Sequence[object]) -> bytes:
    """A workbook of one sheet, Kunden."""
    return archive(workbook_parts({"Kunden": simple_sheet(*rows)}))


def archive_with_bomb(parts: Mapping[str, str], name: str, head: bytes, piece: bytes, times: int, tail: bytes) -> bytes:
    """An archive that has, besides the parts, one that unpacks to head + piece * times + tail; its check sum is wrong."""
    packed = _packed(head) + _packed(piece) * times + _packed(tail, zlib.Z_FINISH)
    size = len(head) + len(piece) * times + len(tail)
    whole = archive(parts)
    end = whole.rfind(b"PK\x05\x06")
    count, length, start = struct.unpack("<HII", whole[end + 10 : end + 20])
    common = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, 0, len(packed), size, len(name), 0)
    local = b"PK\x03\x04" + common + name.encode() + packed
    central = b"PK\x01\x02" + struct.pack("<H", 20) + common + struct.pack("<HHHII", 0, 0, 0, 0, start) + name.encode()
    ending = struct.pack(
        "<4sHHHHIIH", b"PK\x05\x06", 0, 0, count + 1, count + 1, length + len(central), start + len(local), 0
    )
    return whole[:start] + local + whole[start : start + length] + central + ending


def _packed(piece: bytes, end: int = zlib.Z_FULL_FLUSH) -> bytes:
    """A piece of a deflate stream that stands by itself: repeated, it unpacks to the piece repeated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(piece) + packer.flush(end)


def gzip_of(content: bytes) -> bytes:
    """Packed, with no time in it."""
    return gzip.compress(content, 6, mtime=0)


def parquet(columns: Mapping[str, object] | pa.Table, **options: object) -> bytes:
    """A Parquet file."""
    sink = io.BytesIO()
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(dict(columns)), sink, **options)
    return sink.getvalue()
