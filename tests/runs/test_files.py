"""Files that are whole or not there."""

import os

import pytest
import torch
from safetensors.torch import save

from tvae_lib.runs.files import read_tensors, write_atomic


def test_writing_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_tensors_of_another_format_are_refused(tmp_path):
    write_atomic(tmp_path / "old.safetensors", save({"a": torch.zeros(1)}, metadata={"format": "0"}))
    with pytest.raises(ValueError, match="format 0"):
        read_tensors(tmp_path / "old.safetensors")
