from __future__ import annotations

import re
from html.parser import HTMLParser
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image
from rich.table import Table

from lit_ssl.pages.inlining import inline_pictures
from lit_ssl.pages.markup import Markup, element, table, text
from lit_ssl.pages.page import Picture, Section, figures, page
from lit_ssl.pages.printed_tables import printed_table

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onload='x",
    "a\0b\u202ec",
]


def noise(path, edge, mode="RGB"):
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    values = np.random.default_rng(0).integers(0, 255, (edge, edge, *channels), dtype=np.uint8)
    Image.fromarray(values, mode).save(path)
    return path


class Tags(HTMLParser):
    def __init__(self, content):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(content)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_every_text_is_shown_and_none_is_markup(hostile):
    part = table([hostile], [[hostile]], caption=hostile)
    whole = page(hostile, hostile, [Section(hostile, [part])], hostile)
    found = Tags(whole)
    plain = hostile.replace("\0", "\ufffd").replace("\u202e", "\ufffd")
    assert found.texts.count(plain) == 9
    assert {tag for tag, _ in found.tags}.isdisjoint({"script", "img", "iframe"})
    assert not any(name.startswith("on") for _, given in found.tags for name in given)


def test_a_page_is_accessible_and_asks_for_nothing(tmp_path):
    drawn, used = figures([Picture(noise(tmp_path / "a.png", 20), "a picture")], 10**6)
    whole = page("Title", "lead", [Section("Part one", drawn), Section("Empty", [])], "end")
    tags = Tags(whole).tags
    assert ("html", {"lang": "en"}) in tags
    assert "Empty" not in whole
    (picture,) = [given for tag, given in tags if tag == "img"]
    assert picture["alt"] == "a picture"
    assert (picture["width"], picture["height"]) == ("20", "20")
    assert used == len(picture["src"])
    assert "default-src 'none'" in Tags(whole).tags[3][1]["content"]
    for _, given in tags:
        for name in ("src", "href"):
            assert given.get(name, "#").startswith(("#", "data:"))
    assert not re.search(r"url\(|@import|https?:", whole)


def test_tables_have_headers():
    tags = Tags(table(["name", "value"], [["a", 1], ["b", 2]], numbers=[False, True])).tags
    scopes = [given["scope"] for tag, given in tags if tag == "th"]
    assert scopes == ["col", "col", "row", "row"]


def test_a_printed_table_has_the_same_cells():
    printed = Table(title="Worth")
    printed.add_column("protocol")
    printed.add_column("trained", justify="right")
    printed.add_row("k-NN", "[bold]94.3 ± 0.1[/bold]")
    printed.add_row(r"\[bold]name", "", style="bold")
    shown = printed_table(printed)
    assert "<strong>94.3 ± 0.1</strong>" in shown
    assert "<caption>Worth</caption>" in shown
    assert "<strong>[bold]name</strong>" in shown
    assert "caption" not in printed_table(printed, heading="Worth")


def test_markup_is_written_once():
    assert text(element("b", "<")) == "<b>&lt;</b>"
    assert isinstance(text("x"), Markup)


def test_pictures_share_what_a_page_holds(tmp_path):
    small, large, grey = (
        noise(tmp_path / "small.png", 30),
        noise(tmp_path / "large.png", 400),
        noise(tmp_path / "grey.png", 300, "L"),
    )
    found = inline_pictures([large, small, grey], 200_000)
    assert sum(len(one.uri) for one in found) <= 200_000
    assert found[1].note == ""
    assert (found[1].width, found[1].height) == (30, 30)
    assert found[0].note == "scaled down from 400×400"
    assert 64 <= found[0].width < 400
    assert all(one.note == "" for one in inline_pictures([large, small, grey]))


def test_files_that_are_no_pictures_say_so(tmp_path):
    cut = noise(tmp_path / "cut.png", 100)
    cut.write_bytes(cut.read_bytes()[:5000])
    (tmp_path / "text.png").write_text("<svg onload=alert(1)>")
    paths = [cut, tmp_path / "text.png", tmp_path / "none.png", tmp_path]
    found = inline_pictures(paths)
    assert [one.uri for one in found] == [""] * 4
    assert all(one.note for one in found)
    drawn, _ = figures([Picture(path, path.name) for path in paths], 10**6)
    assert not any("<img" in figure for figure in drawn)


def test_a_picture_of_another_format_is_turned_into_png(tmp_path):
    Image.new("RGB", (50, 20), "red").save(tmp_path / "a.bmp")
    (found,) = inline_pictures([tmp_path / "a.bmp"])
    assert found.uri.startswith("data:image/png")
    assert found.width == 50


def test_pictures_of_formats_that_other_programs_read_are_not_opened(tmp_path):
    path = tmp_path / "views.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with patch("PIL.EpsImagePlugin.Ghostscript") as program:
        (shown,) = inline_pictures([path])
    assert not program.called
    assert not shown.uri
    assert shown.note == "cannot be shown: it is no picture of a known kind"


def test_no_two_parts_have_one_name():
    parts = [Section(title, [element("p", "x")]) for title in ("A", "A 2", "A", "A", "é")]
    tags = Tags(page("Title", "lead", parts, "end")).tags
    names = [given["id"] for tag, given in tags if tag == "h2"]
    assert names == ["a", "a-2", "a-3", "a-4", "part"]
