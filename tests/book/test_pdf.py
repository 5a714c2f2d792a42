"""The printed book: one page in which links lead to places of itself, with contents that tell the sheet."""

import sys

import pytest
from pypdf import PdfReader
from test_browser import CHROMIUM

from tvae_lib.training.config import ROOT

sys.path.insert(0, str(ROOT / "book"))
import pdf

CHAPTERS = {"one": "First things", "two": "Second things", "more/one": "Last things"}


@pytest.fixture
def single(tmp_path):
    """What the builder of a single page leaves: a title, and chapters with a mark before each; two have one name."""
    chapters = "".join(
        f'<div><span id="document-notebooks/{name}"></span><section id="{name.rpartition("/")[2]}">'
        f'<h2>{title}<a class="headerlink">#</a></h2>'
        f'<p style="height: 900px">See <a href="book/index.html#one">the first</a>.</p></section></div>'
        for name, title in CHAPTERS.items()
    )
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "index.html").write_text(f'<article class="bd-article"><h1>Book</h1>{chapters}</article>')
    return tmp_path


def test_links_of_the_single_page_stay_inside_it(single):
    assert 'href="#one"' in pdf.at_the_root(single).read_text()


def test_numbers_that_do_not_settle_are_not_printed(single, tmp_path, monkeypatch):
    if not CHROMIUM:
        pytest.skip("no chromium on the path (Debian: apt-get install chromium)")
    prints = []
    monkeypatch.setattr(pdf, "sheets", lambda printed: prints.append(printed) or {"one": len(prints)})
    with pytest.raises(SystemExit, match=f"after {pdf.PASSES} prints the numbers of the contents"):
        pdf.print_book(pdf.at_the_root(single), tmp_path / "book.pdf")
    assert len(prints) == pdf.PASSES
    assert not (tmp_path / "book.pdf").exists()


def test_contents_tell_the_sheet_on_which_a_chapter_begins(single, tmp_path):
    if not CHROMIUM:
        pytest.skip("no chromium on the path (Debian: apt-get install chromium)")
    target = tmp_path / "book.pdf"
    pdf.print_book(pdf.at_the_root(single), target)
    sheets = [page.extract_text() for page in PdfReader(target).pages]
    for title in CHAPTERS.values():
        (begins,) = (i for i, text in enumerate(sheets[1:], start=2) if title in text)
        assert f"{title}{begins}" in sheets[0]
    assert {path.name for path in tmp_path.iterdir()} == {"book", "book.html", "book.pdf"}
