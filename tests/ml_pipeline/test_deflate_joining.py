import zipfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_pipeline.deflate_joining import Checked, checked, deflate_piece, packed_entry

TEXTS = [b"", b"a", b"<row>" * 40_000, bytes(range(256)) * 300, b"the end"]


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_sum_and_length_of_two_texts_are_those_of_the_whole(first, second):
    assert checked(first).then(checked(second)) == Checked(zlib.crc32(first + second), len(first + second))


def test_a_text_of_many_gigabytes_is_joined_at_once():
    zeros = Checked(zlib.crc32(bytes(1 << 20)), 1 << 20)
    whole = zeros
    for _ in range(13):  # 8 GiB by doubling
        whole = whole.then(whole)
    assert whole.length == 8 << 30
    assert whole.then(checked(b"x")) != checked(b"x")


def test_pieces_one_after_the_other_are_one_stream():
    pieces = [deflate_piece([text, text], last=text == TEXTS[-1]) for text in TEXTS]
    packed = b"".join(piece for piece, _packed in pieces)
    assert zlib.decompress(packed, wbits=-zlib.MAX_WBITS) == b"".join(text * 2 for text in TEXTS)
    assert [packed for _piece, packed in pieces] == [checked(text * 2) for text in TEXTS]


@pytest.mark.parametrize("first", [True, False])
def test_a_zip_with_a_packed_file_is_whole_wherever_it_stands(tmp_path, first):
    piece, packed = deflate_piece([b"rows " * 1_000], last=True)
    entry = zipfile.ZipInfo("rows.xml", (1980, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.CRC, entry.file_size, entry.compress_size = packed.crc32, packed.length, len(piece)
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        if not first:
            archive.writestr("other.xml", b"other")
        with packed_entry(archive, entry) as stream:
            stream.write(piece)
        archive.writestr("last.xml", b"last")
    with zipfile.ZipFile(tmp_path / "z.zip") as archive:
        assert archive.testzip() is None
        assert archive.read("rows.xml") == b"rows " * 1_000
        assert archive.read("last.xml") == b"last"
