"""Files that are written whole or not at all: JSON, CSV and safetensors, no pickle."""

import json
import os
from pathlib import Path

import pandas as pd
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

FORMAT = 1  # of everything in a run directory


def write_atomic(path: Path, content: bytes) -> None:
    """Replace a file by its new content, whole or not at all: temporary name, fsync, rename, fsync of the folder."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_json(path: Path, value) -> None:
    write_atomic(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def write_table(path: Path, table: pd.DataFrame) -> None:
    write_atomic(path, table.to_csv(index=False, float_format="%.9g").encode())


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    content = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_atomic(path, save(content, metadata={"format": str(FORMAT)}))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU. ValueError for another format version."""
    with safe_open(path, "pt") as file:
        if (file.metadata() or {}).get("format") != str(FORMAT):
            raise ValueError(f"{path.name} is of format {(file.metadata() or {}).get('format')}, not {FORMAT}")
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
