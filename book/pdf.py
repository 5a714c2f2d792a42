"""Print the whole book as one PDF, with contents and page numbers, by a Chromium on the path.

usage: python book/pdf.py [--output FOLDER]"""

import argparse
import os
import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import build
from playwright.sync_api import Page, sync_playwright
from pypdf import PdfReader

from tvae_lib.runs.files import write_atomic

FOOTER = '<div style="font: 8px sans-serif; margin: auto"><span class="pageNumber"></span></div>'
PAPER = {
    "format": "A4",
    "margin": {"top": "16mm", "bottom": "18mm", "left": "16mm", "right": "16mm"},
    "display_header_footer": True,
    "header_template": "<span></span>",
    "footer_template": FOOTER,
}
FLAGS = ["--no-sandbox", "--disable-gpu"]
PASSES = 4
# An entry for every page of the book, in order, with a place for the number of the sheet on which it begins.
CONTENTS = """() => {
  const nav = document.createElement("nav");
  nav.className = "tvae-contents";
  nav.innerHTML = "<h2>Contents</h2>";
  for (const mark of document.querySelectorAll("span[id^='document-']")) {
    const heading = mark.parentElement.querySelector(`[id="${mark.id}"] ~ section :is(h2, h3, h4)`);
    const entry = document.createElement("a"), title = document.createElement("span");
    title.append(...[...heading.cloneNode(true).childNodes].filter((node) => node.className !== "headerlink"));
    heading.id = `heading-${mark.id}`;  // sections of two pages may have one name
    entry.href = `#${heading.id}`;
    entry.className = heading.tagName === "H2" ? "tvae-chapter" : "tvae-page";
    entry.append(title, document.createElement("output"));
    nav.append(entry);
    if (heading.tagName === "H2") heading.closest("section").style.breakBefore = "page";
  }
  document.querySelector(".bd-article h1").after(nav);
}"""
NUMBER = """(sheets) => document.querySelectorAll(".tvae-contents a").forEach((entry) => {
  entry.lastChild.textContent = sheets[decodeURIComponent(entry.hash.slice(1))] ?? "";
})"""


def chromium() -> str:
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        sys.exit("no chromium on the path, which prints the book (Debian: apt-get install chromium)")
    return found


def at_the_root(folder: Path) -> Path:
    """The single page where its links to images and scripts lead, its links to itself inside it."""
    single = folder / "book.html"
    text = (folder / "book" / "index.html").read_text(encoding="utf-8")
    single.write_text(text.replace('href="book/index.html#', 'href="#'), encoding="utf-8")
    return single


def settled(page: Page, html: Path) -> None:
    page.goto(html.as_uri(), timeout=0)
    if page.locator(".math").count():
        page.wait_for_function("() => window.MathJax?.startup?.promise && window.MathJax.typesetPromise", timeout=0)
        page.evaluate("() => MathJax.startup.promise")
    page.evaluate("() => document.querySelectorAll('img').forEach((image) => { image.loading = 'eager'; })")
    page.evaluate("() => Promise.allSettled([...document.images].map((image) => image.decode()))")


def sheets(printed: bytes) -> dict[str, int]:
    """The sheet on which each place begins that a link leads to, from 1."""
    reader = PdfReader(BytesIO(printed))
    places = reader.named_destinations.items()
    return {name.removeprefix("/"): reader.get_destination_page_number(place) + 1 for name, place in places}


def print_book(html: Path, target: Path) -> None:
    """Print until the contents are right: what sheet a heading is on is known once it has been printed."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page()
        page.set_default_timeout(0)
        told = {}
        for _ in range(PASSES):
            settled(page, html)  # anew: a page that has been printed breaks elsewhere when it is printed again
            page.evaluate(CONTENTS)
            page.evaluate(NUMBER, told)
            printed = page.pdf(outline=True, tagged=True, **PAPER)
            begun = sheets(printed)
            if begun == told:
                break
            told = begun
        else:
            sys.exit(f"after {PASSES} prints the numbers of the contents are not yet those of the sheets")
        browser.close()
    write_atomic(target, printed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=build.ROOT, help="folder in which _build/pdf is made")
    folder = parser.parse_args().output / "_build" / "pdf"
    chromium()
    build.stage(folder / "src", None)
    command = [Path(sys.executable).parent / "jupyter-book", "build", folder / "src", "--path-output", folder]
    code = subprocess.run([*command, "--builder", "singlehtml", "--all", "-W", "--keep-going", "-n"]).returncode
    if not code:
        target = folder / "ternary-vae.pdf"
        print_book(at_the_root(folder / "_build" / "singlehtml"), target)
        print(f"The book on paper: {target}")
    return code


if __name__ == "__main__":
    sys.exit(main())
