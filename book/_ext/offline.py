"""Sphinx extension: pages that need no network.

MathJax comes from an installed package. The scripts of live code cells, which this book does not use, are left out:
they are declared twice on each page, which is an error in the browser, and they point to another host."""

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


def setup(app) -> dict:
    app.connect("build-finished", bring_mathjax)
    app.connect("html-page-context", drop_thebe, priority=900)
    return {"version": "1", "parallel_read_safe": True}
