"""The data of the live figures, written as scripts that a page loads without a server: weights, courses, masses.

Every number comes from results/; numpy and the standard library are enough, as where the book is published."""

import base64
import csv
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
DECODER = tuple(f"A.decoder.body.{i}" for i in (0, 2, 4))
ENCODER = (*(f"A.encoder.body.{i}" for i in (0, 2, 4)), "A.encoder.mean")
WEIGHTS = {  # name of a pair: its file
    "trained": RESULTS / "reference" / "model.safetensors",
    "repaired": RESULTS / "repaired" / "model.safetensors",
    "untrained": RESULTS / "reference" / "snapshots" / "epoch_0000.safetensors",
}
OF_COURSE = ("sampled_50000", "has", "information", "kl_uniform", "exact_injected")
MASS_EPOCHS = (0, 20, 50, 100, 150, 200, 250, 300, 350, 400)
FLOOR, STEP = -10.0, 0.05  # of ln(M p), in 255 steps


def encoded(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")


def layers(path: Path, names: Iterable[str]) -> str:
    """Weights and biases of linear layers one after another, float32."""
    tensors = load_file(path)
    parts = [tensors[f"{name}.{kind}"].ravel() for name in names for kind in ("weight", "bias")]
    return encoded(np.concatenate(parts).astype("<f4"))


def weights() -> dict:
    """Decoder A of each pair, and encoder A of those that are trained."""
    return {
        name: {"decoder": layers(path, DECODER)} | ({} if name == "untrained" else {"encoder": layers(path, ENCODER)})
        for name, path in WEIGHTS.items()
    }


def rows(name: str) -> list[dict[str, str]]:
    with open(RESULTS / "experiments" / f"{name}.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def number(text: str) -> float | None:
    return float(f"{float(text):.5g}") if text else None


def course() -> dict:
    """The document's system over the epochs: a list over the seeds of a list over the epochs for each measure."""
    table = rows("base")
    seeds, epochs = (sorted({int(row[key]) for row in table}) for key in ("seed", "epoch"))
    found = {(int(row["seed"]), int(row["epoch"])): row for row in table}
    columns = [f"{measure}_{p}" for measure in OF_COURSE for p in "AB"] + ["tau_A"]
    values = {c: [[number(found[s, e][c]) for e in epochs] for s in seeds] for c in columns}
    return {"epochs": epochs, "seeds": seeds, "values": values}


def ablations() -> dict:
    """What each variant of the repaired and of the bare pair has at the end: means over its seeds, and how many."""
    columns = [f"{c}_{p}" for c in ("kl_uniform", "information", "exact", "exact_of_partner") for p in "AB"]
    variants: dict[str, list[dict[str, str]]] = {}
    for row in rows("ablations"):
        if row["epoch"] == "400":
            variants.setdefault(row["variant"], []).append(row)
    return {
        name: {c: number(str(np.mean([float(row[c]) for row in at_end]))) for c in columns} | {"seeds": len(at_end)}
        for name, at_end in variants.items()
    }


def masses() -> dict:
    """ln(M p(x)) of every operation at some epochs of the reference run, a byte each: (epochs, A and B, M)."""
    tensors = load_file(RESULTS / "reference" / "evaluations.safetensors")
    places = [tensors["epoch"].tolist().index(epoch) for epoch in MASS_EPOCHS]
    log_p = tensors["log_p"][places].astype(np.float64)
    steps = np.round((log_p + np.log(log_p.shape[-1]) - FLOOR) / STEP)
    return {
        "epochs": list(MASS_EPOCHS),
        "floor": FLOOR,
        "step": STEP,
        "steps": encoded(np.clip(steps, 0, 255).astype(np.uint8)),
    }


DATA = {"weights": weights, "course": course, "ablations": ablations, "masses": masses}


def write(folder: Path) -> None:
    """Write each of `DATA` to a script in the folder that makes it `tvae.<name>`."""
    for name, make in DATA.items():
        text = json.dumps(make(), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        (folder / f"{name}.js").write_text(f"tvae.{name} = {text};\n", encoding="utf-8")
