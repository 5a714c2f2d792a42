"""The built book as a reader sees it: every page, wide and phone width, light and dark, offline, in Chromium."""

import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tvae_lib.training.config import ROOT

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
PAGES = re.findall(r"(?:root|file): (\S+)", (ROOT / "_toc.yml").read_text())
WIDTHS, PAPER = (1280, 768, 390), 680  # pixels; paper is A4 less its margins
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM:
        if os.environ.get("TVAE_REQUIRE_BROWSER"):
            pytest.fail("TVAE_REQUIRE_BROWSER is set, but there is no chromium on the path")
        pytest.skip("no chromium on the path (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = {"args": FLAGS, "ignore_default_args": ["--hide-scrollbars"]}  # which show what scrolls
        browser = playwright.chromium.launch(executable_path=CHROMIUM, **flags)
        yield browser
        browser.close()


class Visit:
    """A page opened in a window of its own; collects what a reader must not meet."""

    def __init__(self, browser, html: Path, name: str, width: int = 1280, scheme: str = "light"):
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.tab, self.problems = self.context.new_page(), []
        self.tab.on("console", lambda m: m.type in ("error", "warning") and self.problems.append(m.text))
        self.tab.on("pageerror", lambda error: self.problems.append(str(error)))
        self.tab.on("request", lambda r: self.refuse_foreign(r.url))
        self.tab.goto((html / f"{name}.html").as_uri())
        self.settle()

    def refuse_foreign(self, url: str) -> None:
        if not url.startswith(("file:", "data:", "blob:")):
            self.problems.append(f"a request to {url}")

    def settle(self) -> None:
        self.tab.wait_for_load_state("load")
        if self.tab.locator(".math").count():
            self.tab.wait_for_function("() => window.MathJax?.startup?.promise && window.MathJax.typesetPromise")
            self.tab.evaluate("() => MathJax.startup.promise")
        self.tab.evaluate("() => document.fonts.ready")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()


# What a reader cannot see: what sticks out of the window sideways, or is cut off. What scrolls shows a bar; on paper
# nothing scrolls.
UNSEEN = """(onPaper) => {
  const width = document.documentElement.clientWidth, found = [];
  const tell = (why, e) => found.push(`${why}: ${e.tagName}.${e.className}: ${e.textContent.trim().slice(0, 60)}`);
  const inABox = (e) => {
    for (let a = e.parentElement; a && a !== document.body; a = a.parentElement) {
      const style = getComputedStyle(a);
      if (style.position === "fixed") return true;
      if (style.overflowX !== "visible" && a.getBoundingClientRect().right <= width + 1) return true;
    }
    return false;
  };
  if (document.documentElement.scrollWidth > width) tell("too wide", document.documentElement);
  for (const e of document.querySelectorAll(".bd-article *")) {
    if (e.closest("mjx-assistive-mml, mjx-ext, details:not([open])")) continue;
    const style = getComputedStyle(e), box = e.getBoundingClientRect();
    if (!box.width) continue;
    if (box.right > width + 1 && !inABox(e)) tell("outside", e);
    if (e.scrollWidth <= e.clientWidth + 1 || !e.clientWidth || style.overflowX === "visible") continue;
    const scrolls = ["auto", "scroll"].includes(style.overflowX);
    if (!scrolls || onPaper) tell("cut", e);
    else if (e.offsetHeight - e.clientHeight < 6) tell("scrolls without a bar", e);
  }
  return found.slice(0, 5);
}"""
BACKGROUND = "() => getComputedStyle(document.body).backgroundColor.match(/[0-9.]+/g).slice(0, 3).map(Number)"


def barriers(tab, **options) -> list[tuple[str, str]]:
    """What keeps some readers out, by axe: the rules of our own part of the page that are broken, each with a place."""
    from axe_playwright_python.sync_playwright import Axe

    options = {"resultTypes": ["violations"], "preload": False} | options
    found = Axe().run(tab, context=".bd-article", options=options).response["violations"]
    grave = [rule for rule in found if rule["impact"] in ("serious", "critical")]
    return [(rule["id"], rule["nodes"][0]["html"]) for rule in grave]


@pytest.mark.parametrize("name", PAGES)
def test_page(browser, html, name):
    with Visit(browser, html, name) as visit:
        tab = visit.tab
        for scheme, rules in (("light", {}), ("dark", {"runOnly": ["color-contrast"]})):
            tab.emulate_media(color_scheme=scheme)
            tab.wait_for_function(f"() => document.documentElement.dataset.theme === '{scheme}'")
            brightness = sum(tab.evaluate(BACKGROUND)) / 3
            assert brightness > 200 if scheme == "light" else brightness < 60
            assert barriers(tab, **rules) == []
        for width in WIDTHS:
            tab.set_viewport_size({"width": width, "height": 900})
            assert tab.evaluate(UNSEEN, False) == [], width
        tab.set_viewport_size({"width": PAPER, "height": 900})
        tab.emulate_media(media="print")
        assert tab.evaluate(UNSEEN, True) == []
        formulas = tab.locator(".math").count()
        assert tab.locator(".math mjx-container").count() >= formulas
        assert tab.locator("mjx-merror").count() == 0
        for image in tab.locator(".bd-article img").all():
            assert image.get_attribute("alt"), "a figure without alt text"
            assert image.evaluate("e => e.naturalWidth") > 0, "an image that does not load"
        assert visit.problems == []


class Anchors(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.ids, self.links = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids |= {attributes[key] for key in ("id", "name") if attributes.get(key)}
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])


def test_every_link_and_anchor_inside_the_book_resolves(html):
    parsed = {path.resolve(): Anchors(path.read_text()) for path in html.rglob("*.html")}
    broken = []
    for path, anchors in parsed.items():
        for link in anchors.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            known = target in parsed and (not parts.fragment or unquote(parts.fragment) in parsed[target].ids)
            if not known and not (target.is_file() and target.suffix != ".html"):
                broken.append(f"{path.relative_to(html.resolve())}: {link}")
    assert broken == []


def test_no_directive_or_label_is_left_as_text(html):
    for path in html.rglob("*.html"):
        text = path.read_text()
        assert "```{" not in text, path.name
        if path.name not in ("equations.html", "prf-prf.html"):  # these list labels
            assert not re.findall(r">\s*((?:thm|eq|fig|sec|step|ex)-[a-z0-9-]+)\s*<", text), path.name


def test_theme_switch(browser, html):
    with Visit(browser, html, "book/index") as visit:
        seen = set()
        for _ in range(3):
            visit.tab.locator("button.theme-switch-button").first.click()
            seen.add(visit.tab.evaluate("() => document.documentElement.dataset.theme"))
        assert seen == {"light", "dark"}
        assert visit.problems == []


def test_search_finds_a_word_of_the_text(browser, html):
    with Visit(browser, html, "search") as visit:
        visit.tab.goto((html / "search.html").as_uri() + "?q=collector")
        visit.tab.wait_for_selector("#search-results li a")
        found = [a.get_attribute("href") for a in visit.tab.locator("#search-results li a").all()]
        assert any("01_operations" in link for link in found)
        visit.tab.wait_for_selector("#search-results li p.context")
        assert "collector" in visit.tab.locator("#search-results li p.context").first.inner_text().lower()
        assert visit.problems == []


def test_search_puts_the_chapters_before_the_library(browser, html):
    with Visit(browser, html, "search") as visit:
        visit.tab.goto((html / "search.html").as_uri() + "?q=collisions")
        visit.tab.wait_for_selector("#search-results li a")
        visit.tab.wait_for_function("() => document.body.innerText.includes('Search finished')")
        found = [a.get_attribute("href") for a in visit.tab.locator("#search-results li a").all()]
        of_library = ["book/library" in link for link in found]
        assert any(of_library)
        assert of_library == sorted(of_library)


def test_slider_draws_the_operation_and_obeys_the_keyboard(browser, html):
    with Visit(browser, html, "notebooks/01_operations") as visit:
        slider = visit.tab.locator("#tvae-index")
        signs = "() => [...document.querySelectorAll('#tvae-glyph text')].map(e => e.textContent).join('')"
        assert visit.tab.evaluate(signs) == "000000000"
        slider.focus()
        visit.tab.keyboard.press("ArrowRight")
        assert visit.tab.evaluate(signs) == "00000000+"
        assert visit.tab.locator("#tvae-number").inner_text() == "9,842"


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("On your GPU", "-p device cuda"),
        ("The full run", "The course of the run"),
        ("the function that computes an operation’s index", "def index_of(operations: Tensor) -> Tensor:"),
    ],
)
def test_two_clicks_lead_from_the_landing_page(browser, html, link, expected):
    with Visit(browser, html, "book/index") as visit:
        visit.tab.locator(".bd-article").get_by_role("link", name=link).first.click()
        visit.settle()
        assert expected in visit.tab.locator(".bd-article").inner_text()
        fragment = urlsplit(visit.tab.url).fragment
        if fragment:
            place = f"document.getElementById('{fragment}').getBoundingClientRect().top"
            visit.tab.wait_for_function(f"() => Math.abs({place}) < 900")  # the page scrolls there smoothly
        assert visit.problems == []
