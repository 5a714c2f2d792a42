"""No page of a chapter is longer than a reader's patience: words, visible lines of code, tables."""

import ast
import json
import re

import pytest

from tvae_lib.training.config import ROOT

MOST = {"words": 3000, "lines of code": 150, "tables": 6}
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
HIDDEN = {"hide-input", "remove-input", "hide-cell", "remove-cell"}


def lines_included(file: str, name: str) -> int:
    """How many lines a `literalinclude` of a function, a class or a method shows."""
    body, node = ast.parse((ROOT / "notebooks" / file).read_text(encoding="utf-8")).body, None
    for part in name.split("."):
        node = next(one for one in body if getattr(one, "name", None) == part)
        body = node.body
    return node.end_lineno - node.lineno + 1


def words_of(markdown: str) -> int:
    """Words of prose and tables; a formula or a link counts as one."""
    text = re.sub(r"```+\{(math|literalinclude|raw)\}.*?```+", "", markdown, flags=re.DOTALL)
    text = re.sub(r"```(bash|python)\n.*?```", "", text, flags=re.DOTALL)
    text = re.sub(r"\$\$.*?\$\$|\$[^$]*\$|\{[\w:]+\}`[^`]*`", " x ", text, flags=re.DOTALL)
    text = re.sub(r"^:\w+:.*$", "", text, flags=re.MULTILINE)
    return len(re.findall(r"[A-Za-z][\w’'-]*", text))


def counted(cells: list[dict]) -> dict[str, int]:
    found = dict.fromkeys(MOST, 0)
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            included = re.findall(r"```\{literalinclude\} (\S+)\n(?:.*\n)*?:pyobject: (\S+)", source)
            found["lines of code"] += sum(lines_included(*given) for given in included)
            found["tables"] += len(re.findall(r"^\|[-| :]+\|$", source, re.MULTILINE)) + source.count("{list-table}")
            found["words"] += words_of(source)
        elif not HIDDEN & set(cell["metadata"].get("tags", [])):
            found["lines of code"] += sum(bool(line.strip()) for line in source.splitlines())
        shown = [output.get("data", {}).get("text/html", "") for output in cell.get("outputs", [])]
        found["tables"] += sum("".join(html).count("<table") for html in shown)
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_page_keeps_within_what_a_reader_bears(path):
    found = counted(json.loads(path.read_text(encoding="utf-8"))["cells"])
    assert {name: n for name, n in found.items() if n > MOST[name]} == {}


def test_what_is_counted():
    cells = [
        {
            "cell_type": "markdown",
            "source": "Two *words*, $x = 1$ and {doc}`a link <b>`.\n\n| a | b |\n|---|---|\n| c | d |",
        },
        {
            "cell_type": "code",
            "source": "x = 1\n\ny = 2",
            "metadata": {},
            "outputs": [{"data": {"text/html": "<table>"}}],
        },
        {"cell_type": "code", "source": "x = 1", "metadata": {"tags": ["hide-input"]}, "outputs": []},
    ]
    assert counted(cells) == {"words": 9, "lines of code": 2, "tables": 2}
