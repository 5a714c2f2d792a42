"""Sphinx extension: pages that need no network, and little of it where there is one.

MathJax comes from an installed package. The scripts of live code cells, which this book does not use, are left out:
they are declared twice on each page, which is an error in the browser, and they point to another host."""

import json
import shutil
from importlib.metadata import distribution
from pathlib import Path

MATHJAX = ("tex-mml-chtml.js", "output/chtml/fonts/woff-v2")


def drop_thebe(app, pagename, templatename, context, doctree) -> None:
    def is_thebe(script) -> bool:
        return "thebe" in f"{getattr(script, 'filename', '')} {getattr(script, 'attributes', {})}".lower()

    context["script_files"] = [script for script in context["script_files"] if not is_thebe(script)]


def bring_mathjax(app, error) -> None:
    if error or app.builder.format != "html":
        return
    package = Path(str(distribution("sphinx-mathjax-offline").locate_file("sphinx-mathjax-offline")))
    for name in MATHJAX:
        source, target = package / "static" / "mathjax" / name, Path(app.outdir) / "_static" / "mathjax" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target, dirs_exist_ok=True) if source.is_dir() else shutil.copy(source, target)


def draw_icons_ourselves(app, error) -> None:
    """The theme's script of some thousand icons is emptied; icons.css has those that are used."""
    script = Path(app.outdir) / "_static" / "scripts" / "fontawesome.js"
    if not error and script.exists():
        script.write_text("/* The icons are in icons.css. */\n")


def mend_roles(app, pagename, templatename, context, doctree) -> None:
    """A bibliography is called a list by docutils, but its entries are no items of a list."""
    if "body" in context:
        context["body"] = context["body"].replace(
            '<div role="list" class="citation-list">', '<div class="citation-list">'
        )


def keep_text(app, pagename, templatename, context, doctree) -> None:
    """The text of a page, of which the search shows some words; and on the search's page the script that reads it."""
    if doctree:
        app.env.page_texts = getattr(app.env, "page_texts", {}) | {pagename: doctree.astext()}
    elif pagename == "search":
        app.add_js_file("page_texts.js")
        app.add_js_file("search.js")


def write_texts(app, error) -> None:
    if not error and app.builder.name == "html":
        texts = json.dumps(app.env.page_texts, ensure_ascii=False)
        (Path(app.outdir) / "_static" / "page_texts.js").write_text(f"const pageTexts = {texts};\n", encoding="utf-8")


def show_card(app, pagename, templatename, context, doctree) -> None:
    """The picture that others show beside a link to the book; it needs a whole address."""
    base, picture = app.config.html_baseurl, "_static/course.png"
    if base and (Path(app.srcdir) / "book" / picture).exists():
        context["metatags"] = context.get("metatags", "") + f'<meta property="og:image" content="{base}{picture}" />\n'


def announce(app, error) -> None:
    """sitemap.xml, where it is known where the book is published."""
    base = app.config.html_baseurl
    if error or not base or app.builder.name != "html":
        return
    pages = "".join(f"<url><loc>{base}{name}.html</loc></url>" for name in sorted(app.env.found_docs))
    text = f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{pages}</urlset>'
    (Path(app.outdir) / "sitemap.xml").write_text(text + "\n")


def one_page_as_many(app) -> None:
    """What extensions say about their nodes in HTML holds for the book on a single page, too."""
    handlers = app.registry.translation_handlers
    handlers["singlehtml"] = handlers["html"] | handlers.get("singlehtml", {})


def setup(app) -> dict:
    app.connect("builder-inited", one_page_as_many)
    app.connect("build-finished", bring_mathjax)
    app.connect("build-finished", draw_icons_ourselves)
    app.connect("build-finished", announce)
    app.connect("build-finished", write_texts)
    app.connect("html-page-context", keep_text)
    app.connect("html-page-context", mend_roles)
    app.connect("html-page-context", show_card)
    app.connect("html-page-context", drop_thebe, priority=900)
    return {"version": "1", "parallel_read_safe": True}
