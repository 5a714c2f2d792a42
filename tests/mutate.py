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
PARTS = ("tvae_lib", "tests", "notebooks", "results", "book", "benchmarks", "workflow")
TESTS = (
    *("test_models.py", "test_operations.py", "test_losses.py", "test_evaluation.py", "test_frontier.py"),
    *("test_coupling.py", "test_statenet.py", "test_codes.py", "test_schedules.py", "test_config.py"),
    *("test_training.py", "test_single.py", "test_ensemble.py", "test_runs.py", "test_laboratory.py", "test_sweep.py"),
)
CHAPTERS = tuple(
    f"{name}.ipynb"
    for name in (
        "01_operations",
        "02_vae",
        "03_dual_vae",
        "04_cross_injection",
        "05_statenet",
        "06_losses",
        "07_schedules",
        "09_convergence",
    )
)


def fails(folder: Path, *arguments: str) -> bool:
    """Whether pytest finds a failure; RuntimeError where it could not run at all."""
    environment = os.environ | {"PYTHONPATH": str(folder), "TVAE_SHOW_REFERENCE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
    return done.returncode == 1


def noticed_by(folder: Path, module: str = "") -> str | None:
    """The name of what notices the mistake in a copy of the project; the tests of the module are asked first."""
    if fails(folder, *(f"tests/{name}" for name in sorted(TESTS, key=lambda name: name != f"test_{module}"))):
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
            path = folder / "tvae_lib" / mutation["file"]
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
