"""Make each mistake of mutations.yml in a copy of the project, and see that a test or a notebook notices it.

usage: python tests/mutate.py [number ...]     (no number: all; exit code 1 where one goes unnoticed)
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("tvae_lib", "studies", "tests", "notebooks", "results", "book", "benchmarks")
TESTS = (
    *("test_operations.py", "test_coverage.py", "test_rng.py", "system", "theory", "training", "measures", "runs"),
    *(f"studies/test_{name}.py" for name in ("study", "tables", "catalogue", "command_line", "single", "minibatch")),
    *(f"studies/test_{name}.py" for name in ("rates", "variants", "couplings", "phases", "generators", "reports")),
    *(f"studies/test_{name}.py" for name in ("repairs", "comparisons", "limits", "whole_runs")),
)
RUNS = ("08_full_run", "12_compare", "performance", "tour")  # pages that show what was run, and check nothing
CHAPTERS = tuple(sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb") if path.stem not in RUNS))


def fails(folder: Path, *arguments: str) -> bool:
    """Whether pytest finds a failure; RuntimeError where it could not run at all."""
    environment = os.environ | {"PYTHONPATH": str(folder), "TVAE_SHOW_REFERENCE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
    return done.returncode == 1


def noticed_by(folder: Path, file: str = "") -> str | None:
    """The name of what notices the mistake in a copy of the project; the tests of the file are asked first."""
    own = [str(path) for path in (folder / "tests").rglob(f"test_{Path(file).stem}.py")]
    if any(fails(folder, *paths) for paths in (own, [f"tests/{name}" for name in TESTS]) if paths):
        return "tests"
    return next((name for name in CHAPTERS if fails(folder, "--nbval", f"notebooks/{name}")), None)


def main(numbers: list[int]) -> int:
    mutations = yaml.safe_load((ROOT / "tests" / "mutations.yml").read_text())
    missed = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for part in PARTS:
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("pyproject.toml", "requirements.txt", "Makefile"):
            shutil.copy(ROOT / file, folder)
        if noticed_by(folder):
            print("the project fails without any mistake")
            return 1
        for number, mutation in enumerate(mutations, start=1):
            if numbers and number not in numbers:
                continue
            path = folder / mutation["file"]
            text = path.read_text()
            path.write_text(text.replace(mutation["find"], mutation["put"]))
            found = noticed_by(folder, mutation["file"])
            path.write_text(text)
            missed += found is None
            print(f"{number:2} {mutation['file']}: {mutation['put']}  -> {found or 'UNNOTICED'}", flush=True)
    print(f"{missed} unnoticed")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main([int(argument) for argument in sys.argv[1:]]))
