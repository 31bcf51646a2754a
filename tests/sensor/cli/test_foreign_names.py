"""What other people's file names do to a terminal: nothing."""

from __future__ import annotations

import os

from mmsensor import render


def row(path: str) -> dict[str, object]:
    return {"attached": True, "processes": 1, "path": path, "reason": "", "why": "exported", "doubt": ""}


def test_names_give_no_orders_and_no_lines_of_their_own() -> None:
    names = ["/esc\x1b[2J", "/line\nattached", "/back\r", "/right\u202eleft", os.fsdecode(b"/no\xff\xfetext")]
    text = render.targets_text([row(name) for name in names])
    assert text.isascii()
    lines = text.split("\n")
    assert len(lines) == 1 + len(names)
    assert all(line.isprintable() for line in lines)
    assert r"/esc\x1b[2J" in text


def test_what_can_be_read_stays_as_it_is() -> None:
    assert render.legible("Zürich\n日本\n") == "Zürich\n日本\n"


def test_one_long_name_leaves_the_other_rows_readable() -> None:
    lines = render.targets_text([row("/" + "long" * 1000), row("/short")]).split("\n")
    assert len(lines[2]) < 150
