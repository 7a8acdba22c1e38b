from __future__ import annotations

import pytest

from lit_ssl.errors import InputError
from lit_ssl.tables import csv_lines, even_columns

EVEN = [
    "a,b\n1,2\n3,4\n",
    "a,b\r\n1,2\r\n3,4",
    "\ufeffa,b\n1,2\n",
    'a,b\n"1,5",2\n',
    "a\n1\n2\n",
    "a,b\n",
    "a,b\n,\n",
]
OTHERS = [
    "",
    "a,b\n1,2,3\n",
    "a,b\n1\n2,3,4\n",
    "a,b\n\n1,2\n",
    "a\n \n1\n",
    " \n1\n",
    'a,b\n"1\n5",2\n',
    'a,b\n"1,2\n',
    "a,b\n1,\0\n",
    "\na,b\n1,2\n",
]


@pytest.mark.parametrize("text", EVEN)
def test_even_files_are_read_as_line_by_line(tmp_path, text):
    path = tmp_path / "table.csv"
    path.write_text(text, newline="", encoding="utf-8")
    lines = list(csv_lines(path, "a table"))
    assert even_columns(path) == [
        list(column) for column in zip(*(f for _, f in lines), strict=True)
    ]
    assert [number for number, _ in lines] == list(range(1, len(lines) + 1))


@pytest.mark.parametrize("text", OTHERS)
def test_all_other_files_are_left_to_the_careful_reader(tmp_path, text):
    path = tmp_path / "table.csv"
    path.write_text(text, newline="", encoding="utf-8")
    assert even_columns(path) is None


def test_zero_bytes_and_foreign_bytes_are_named(tmp_path):
    path = tmp_path / "table.csv"
    for content, message in (
        (b"a\n1\n\0\n", "line 3 holds zero bytes"),
        (b"\xe9\xff", "is no text"),
    ):
        path.write_bytes(content)
        assert even_columns(path) is None
        with pytest.raises(InputError, match=message):
            list(csv_lines(path, "a table"))
