"""Form bodies as `requests` and the standard library write them: fields, files, bounds, and any split."""

from __future__ import annotations

import email.mime.multipart
import email.mime.text
import email.policy
import io
import tracemalloc
from collections.abc import Iterable

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from tests.proto.framing.pieces import SIZES, WHOLE, cut

from mmproto.framing import multipart
from mmproto.framing.multipart import FilePart, Form, FormReader

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=12)
TYPE = 'multipart/form-data; boundary="sep"'


def read(content_type: str, body: bytes, sizes: Iterable[int] = WHOLE) -> tuple[Form, str]:
    reader = FormReader(content_type)
    for piece in cut(body, sizes):
        reader.feed(piece)
    return reader.finish(), reader.problem


@given(
    st.dictionaries(NAMES, st.text(max_size=60), min_size=1, max_size=5),
    st.lists(st.tuples(NAMES, NAMES, st.binary(max_size=400)), max_size=3),
    SIZES,
)
def test_what_requests_sends(
    fields: dict[str, str], files: list[tuple[str, str, bytes]], sizes: list[int]
) -> None:
    parts = [(name, (filename, io.BytesIO(data), "audio/wav")) for name, filename, data in files]
    texts = {name: text.encode() for name, text in fields.items()}
    sent = requests.Request("POST", "http://x/", data=texts, files=parts or {"f": b""}).prepare()
    assert isinstance(sent.body, bytes)
    form, problem = read(sent.headers["content-type"], sent.body, sizes)
    written = {name.replace('"', "%22"): text for name, text in fields.items()}
    assert not problem
    assert form.fields == written
    if parts:
        assert [part.size for part in form.files] == [len(data) for _, _, data in files]
        assert [part.content_type for part in form.files] == ["audio/wav"] * len(files)


def part(name: str, data: bytes, filename: str | None = None, line: bytes = b"\r\n") -> bytes:
    head = f'Content-Disposition: form-data; name="{name}"' + (f'; filename="{filename}"' if filename else "")
    return b"--sep" + line + head.encode() + line + line + data + line


END = b"--sep--\r\n"


def test_what_the_standard_library_writes() -> None:
    form = email.mime.multipart.MIMEMultipart("form-data", "sep")
    for name, text in (("model", "whisper-1"), ("prompt", "über")):
        field = email.mime.text.MIMEText(text)
        field.add_header("Content-Disposition", "form-data", name=name)
        del field["MIME-Version"], field["Content-Transfer-Encoding"]
        field.set_payload(text.encode().decode("ascii", "surrogateescape"))
        form.attach(field)
    body = form.as_bytes(policy=email.policy.HTTP.clone(cte_type="8bit", utf8=True))
    found, problem = read(TYPE, body.partition(b"\r\n\r\n")[2])
    assert (found.fields, problem) == ({"model": "whisper-1", "prompt": "über"}, "")


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize(
    ("body", "fields", "problem"),
    [
        (part("model", b"m") + END, {"model": "m"}, ""),
        (b"preamble\r\n" + part("model", b"m") + END + b"epilogue", {"model": "m"}, ""),
        (part("model", b"m", line=b"\n") + b"--sep--", {"model": "m"}, ""),
        (part("model", b"") + END, {"model": ""}, ""),
        (part("a", b"x\r\n\r\n--se\r") + END, {"a": "x\r\n\r\n--se\r"}, ""),
        (b"--sep\r\n\r\nno head\r\n" + END, {"": "no head"}, ""),
        (b"--sep  \r\ncontent-disposition:form-data;\r\n name=a\r\n\r\n1\r\n" + END, {"a": "1"}, ""),
        (part("a", b"1") + part("a", b"2") + END, {"a": "2"}, ""),
        (part("a", b"1") + b"--sep\r\nContent-Dispo", {"a": "1"}, multipart.CUT_SHORT),
        (part("a", b"1") + b"--separate\r\n", {"a": "1"}, multipart.MALFORMED),
        (b"no form", {}, multipart.CUT_SHORT),
        (part("a", b"1") + b"--sep\r\n" + b"x" * 20_000 + END, {"a": "1"}, multipart.MALFORMED),
    ],
)
def test_bodies(body: bytes, fields: dict[str, str], problem: str, size: int) -> None:
    form, found = read(TYPE, body, [size])
    assert (form.fields, found) == (fields, problem)
    assert not form.files


@given(st.text(alphabet='-sep\r\n:; =name"', max_size=200).map(str.encode), SIZES)
def test_any_split_of_anything(body: bytes, sizes: list[int]) -> None:
    assert read(TYPE, b"--sep\r\n" + body, sizes) == read(TYPE, b"--sep\r\n" + body)


@pytest.mark.parametrize(
    "content_type", ["multipart/form-data", "", "multipart/form-data; boundary=" + "x" * 300]
)
def test_a_boundary_is_needed(content_type: str) -> None:
    assert read(content_type, part("a", b"1"))[1] == multipart.NO_BOUNDARY


def test_file_names() -> None:
    head = b'--sep\r\nContent-Disposition: form-data; name="file"; filename="a\\"b.wav"'
    head += b"; filename*=UTF-8''%C3%A9.wav"
    form, _ = read(TYPE, head + b"\r\nContent-Type: audio/wav\r\n\r\n12345\r\n" + END)
    assert form.files == [FilePart("file", "é.wav", "audio/wav", 5)]


def test_a_large_upload_costs_no_memory() -> None:
    reader = FormReader(TYPE)
    tracemalloc.start()
    reader.feed(part("model", b"m") + part("file", b"", "f.wav")[:-2])
    for _ in range(2000):
        reader.feed(b"\r\n--sound of silence--" * 3000)
    reader.feed(b"\r\n" + END)
    assert tracemalloc.get_traced_memory()[1] < 500_000
    tracemalloc.stop()
    assert reader.finish().files == [FilePart("file", "f.wav", "", 2000 * 3000 * 22)]
    assert reader.form.fields == {"model": "m"}


def test_texts_and_parts_are_bounded() -> None:
    long = b"x" * (multipart.MAX_VALUE + 1)
    form, _ = read(TYPE, part("prompt", long) + part("model", b"m") + END)
    assert form.fields == {"model": "m"}
    assert form.files == [FilePart("prompt", "", "", len(long))]
    many = b"".join(part(f"n{n}", b"x" * multipart.MAX_VALUE) for n in range(10))
    form, _ = read(TYPE, many + END)
    assert sum(map(len, form.fields.values())) == multipart.MAX_TEXT
    assert len(form.files) == 6
    _, problem = read(TYPE, b"".join(part(f"n{n}", b"") for n in range(multipart.MAX_PARTS + 1)) + END)
    assert problem == multipart.TOO_MANY


def test_after_a_loss_what_was_read_stands() -> None:
    reader = FormReader(TYPE)
    reader.feed(part("model", b"m") + part("file", b"", "f.wav"))
    reader.lose()
    reader.feed(part("model", b"of another") + END)
    assert (reader.finish().fields, reader.problem) == ({"model": "m"}, multipart.LOST)


def test_the_document_that_a_form_stands_for() -> None:
    fields = {"model": "m", "n": "2", "stream": "true", "include[]": "logprobs", "metadata[user_id]": "7"}
    form = Form(fields | {"x[y]z": ""}, [FilePart("image[]", "a.png", "image/png", 9)])
    assert form.document() == {
        "model": "m",
        "n": "2",
        "stream": True,
        "include": "logprobs",
        "metadata": {"user_id": "7"},
        "x[y]z": "",
        "image": {"filename": "a.png", "content_type": "image/png", "size": 9},
    }
