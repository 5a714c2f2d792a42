"""Sphinx extension: leave out the scripts of live code cells, which this book does not use.

They are declared twice on each page, which is an error in the browser, and they point to another host."""


def drop_thebe(app, pagename, templatename, context, doctree) -> None:
    def is_thebe(script) -> bool:
        return "thebe" in f"{getattr(script, 'filename', '')} {getattr(script, 'attributes', {})}".lower()

    context["script_files"] = [script for script in context["script_files"] if not is_thebe(script)]


def setup(app) -> dict:
    app.connect("html-page-context", drop_thebe, priority=900)
    return {"version": "1", "parallel_read_safe": True}
