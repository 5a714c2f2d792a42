"""Files that are written whole or not at all, and known again: JSON, CSV and safetensors, no pickle.

Tensors and sealed JSON carry a digest of their content, so that a file that was changed is not read as if it were
whole. Only regular files are read; what cannot be read or written ends in a FileError, one sentence with the path."""

import contextlib
import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from safetensors.torch import load, save
from torch import Tensor

from tvae_lib.errors import FileError, shown

FORMAT = 3  # of everything in a run directory
LEFTOVER = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.tmp")  # of a write that a kill ended


def reason(error: Exception) -> str:
    """What an error says, on one short line."""
    told = shown((isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__)
    return told.strip("'\"").rstrip(".").replace(". ", ", ")


def file_error(path: Path, what: str, remedy: str = "") -> FileError:
    """The sentence about a file: what is wrong with it, and what to do."""
    return FileError(f"{shown(str(path), 1000)} {what}{f'; {remedy}' if remedy else ''}.")


@contextlib.contextmanager
def advised(remedy: str) -> Iterator[None]:
    """Add to a FileError what to do about it."""
    try:
        yield
    except FileError as error:
        raise FileError(f"{str(error).removesuffix('.')}; {remedy}.") from None


def is_regular(path: Path) -> bool:
    """Whether there is a file of its own: no link, folder, pipe or device. OSError where that cannot be known."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(found.st_mode)


def read_bytes(path: Path) -> bytes:
    """The content of a regular file; FileError where it is none or cannot be read."""
    try:
        if os.path.lexists(path) and not is_regular(path):
            raise file_error(path, "is no regular file", "move it away")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise file_error(path, f"cannot be read ({reason(error)})") from None


def sha256(path: Path) -> str:
    return hashlib.sha256(read_bytes(path)).hexdigest()


def not_written(path: Path, error: OSError) -> FileError:
    remedy = "what was there before is whole, and the same command goes on once this is mended"
    return file_error(path, f"could not be written ({reason(error)})", remedy)


def replace(source: Path, target: Path) -> None:
    """Let a whole file take another's place in its folder: rename, fsync of the folder; FileError where it cannot."""
    try:
        os.replace(source, target)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise not_written(target, error) from None


def write_atomic(path: Path, content: bytes) -> None:
    """Replace a file by its new content, whole or not at all: temporary name, fsync, rename, fsync of the folder."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        if os.path.lexists(path) and not is_regular(path):
            raise file_error(path, "is no regular file", "move it away")
        try:
            with open(temporary, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise not_written(path, error) from None


def write_json(path: Path, value) -> None:
    write_atomic(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict:
    """A JSON file that holds an object; FileError where it does not."""
    try:
        value = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise file_error(path, f"is no JSON ({reason(error)})") from None
    if not isinstance(value, dict):
        raise file_error(path, "holds no JSON object")
    return value


def digest_of_json(value) -> str:
    """Of the value as it comes back from a file, where every key is a text."""
    as_read = json.loads(json.dumps(value))
    return hashlib.sha256(json.dumps(as_read, sort_keys=True).encode()).hexdigest()


def write_sealed(path: Path, value: dict) -> None:
    """Write JSON with a digest of the rest of it."""
    write_json(path, value | {"digest": digest_of_json(value)})


def read_sealed(path: Path) -> dict:
    """What `write_sealed` wrote, without the digest; FileError where it was changed since, or has another format."""
    value = read_json(path)
    if value.get("format") != FORMAT:
        raise file_error(path, f"is of format {shown(value.get('format'))} where this version reads {FORMAT}")
    digest = value.pop("digest", None)
    try:
        if digest == digest_of_json(value):
            return value
    except (ValueError, RecursionError):
        pass
    raise file_error(path, "is not what was written, as its digest shows")


def csv_of(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False, float_format="%.9g").encode()


def write_table(path: Path, table: pd.DataFrame) -> None:
    write_atomic(path, csv_of(table))


def read_table(path: Path) -> pd.DataFrame:
    """A CSV file; FileError where it cannot be read as one."""
    read_bytes(path)
    try:
        return pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise file_error(path, f"is no table ({reason(error)})") from None


def digest_of_tensors(tensors: dict[str, Tensor], marks: dict[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(marks, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def write_tensors(path: Path, tensors: dict[str, Tensor], **marks: str) -> None:
    """Tensors as safetensors, with what they are marked as belonging to and a digest of both."""
    content = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    known = marks | {"format": str(FORMAT)}
    sealed = known | {"digest": digest_of_tensors(content, known)}
    # One entry: safetensors writes several in any order, and equal runs are to give equal bytes.
    write_atomic(path, save(content, {"seal": json.dumps(sealed, sort_keys=True)}))


def read_tensors(path: Path, **marks: str) -> dict[str, Tensor]:
    """What `write_tensors` wrote under these marks, on the CPU; FileError for anything else."""
    content = read_bytes(path)
    try:
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        known = json.loads((header.get("__metadata__") or {}).get("seal", "{}"))
        digest, found = known.pop("digest", None), digest_of_tensors(tensors, known)
    except Exception as error:  # a damaged file fails in whatever way
        raise file_error(path, f"holds no tensors ({reason(error)})") from None
    if known.get("format") != str(FORMAT):
        raise file_error(path, f"is of format {shown(known.get('format'))} where this version reads {FORMAT}")
    if digest != found:
        raise file_error(path, "is not what was written, as its digest shows")
    if any(known.get(name) != mark for name, mark in marks.items()):
        raise file_error(path, "belongs to another run")
    return tensors
