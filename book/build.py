"""Stage the book in _build/src, perhaps with another full-run notebook, and build it strictly.

usage: python book/build.py [--full-run NOTEBOOK] [--output FOLDER]"""

import argparse
import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path

import live

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("_config.yml", "_toc.yml", "book", "notebooks", "tvae_lib", "studies")


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    else:
        shutil.copy2(source, target)


def picture(notebook: str, cell: str) -> bytes:
    """The figure that a cell of an executed notebook shows, a PNG."""
    cells = json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    (outputs,) = (one["outputs"] for one in cells if one["id"] == cell)
    (image,) = (output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {}))
    return base64.b64decode("".join(image))


def stage(folder: Path, full_run: Path | None) -> None:
    """A copy of everything the book is made of; the repository itself stays as it is."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in SOURCES:
        copy(ROOT / name, folder / name)
    live.write(folder / "book" / "_static" / "live")
    (folder / "book" / "_static" / "course.png").write_bytes(picture("tour", "tour-11"))
    if full_run:
        copy(full_run, folder / "notebooks" / "08_full_run.ipynb")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full-run", type=Path, help="executed notebook to show instead of the reference run")
    parser.add_argument("--output", type=Path, default=ROOT, help="folder in which _build/src and _build/html are made")
    arguments = parser.parse_args()
    source = arguments.output / "_build" / "src"
    stage(source, arguments.full_run)
    command = [Path(sys.executable).parent / "jupyter-book", "build", source, "--path-output", arguments.output]
    return subprocess.run([*command, "--all", "-W", "--keep-going", "-n"]).returncode


if __name__ == "__main__":
    sys.exit(main())
