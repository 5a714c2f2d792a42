"""Files that are whole or not there."""

import os

import pytest
import torch
from safetensors.torch import save
from shared import is_one_sentence

from tvae_lib.errors import FileError
from tvae_lib.runs.files import FORMAT, read_bytes, read_sealed, read_tensors, write_atomic, write_sealed, write_tensors


def test_writing_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match=r"No space left on device.*the same command goes on"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_tensors_come_back_under_their_marks_and_no_others(tmp_path):
    path, tensors = tmp_path / "t.safetensors", {"a": torch.arange(3.0), "b": torch.tensor(7)}
    write_tensors(path, tensors, identity="mine")
    found = read_tensors(path, identity="mine")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    with pytest.raises(FileError, match="belongs to another run"):
        read_tensors(path, identity="theirs")


def test_tensors_of_another_format_are_refused(tmp_path):
    write_atomic(tmp_path / "old.safetensors", save({"a": torch.zeros(1)}, metadata={"format": "1"}))
    with pytest.raises(FileError, match=f"is of format None where this version reads {FORMAT}"):
        read_tensors(tmp_path / "old.safetensors")


@pytest.mark.parametrize("place", ["header", "middle", "end", "cut", "longer"])
def test_tensors_that_changed_by_a_bit_are_refused(tmp_path, place):
    path = tmp_path / "t.safetensors"
    write_tensors(path, {"a": torch.arange(300.0)}, identity="mine")
    content = bytearray(path.read_bytes())
    at = {"header": 3, "middle": len(content) - 600, "end": len(content) - 1}.get(place, 0)
    if place == "cut":
        del content[-4:]
    elif place == "longer":
        content += b"1234"
    else:
        content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(FileError) as refusal:
        read_tensors(path)
    assert is_one_sentence(str(refusal.value))


def test_sealed_json_is_read_as_it_was_written_or_not_at_all(tmp_path):
    path = tmp_path / "m.json"
    write_sealed(path, {"format": FORMAT, "value": 0.5, "at": {50_000: 1, 195_000: 2}})  # in another order as texts
    assert read_sealed(path) == {"format": FORMAT, "value": 0.5, "at": {"50000": 1, "195000": 2}}
    path.write_text(path.read_text().replace("0.5", "0.6"))
    with pytest.raises(FileError, match="is not what was written, as its digest shows"):
        read_sealed(path)


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", "[" * 100_000, "\x00", '{"format": 2, "digest": ' + "[" * 500 + "]" * 500 + "}"]
)
def test_whatever_is_no_json_of_ours_ends_in_one_sentence(tmp_path, content):
    path = tmp_path / "m.json"
    path.write_text(content)
    with pytest.raises(FileError) as refusal:
        read_sealed(path)
    assert is_one_sentence(str(refusal.value))
    assert str(path) in str(refusal.value)


def test_only_regular_files_are_read_and_replaced(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "link").symlink_to("mine")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "folder", "pipe"):
        for act in (lambda path: read_bytes(path), lambda path: write_atomic(path, b"ours")):
            with pytest.raises(FileError, match=f"{name}' is no regular file; move it away"):
                act(tmp_path / name)
    assert (tmp_path / "mine").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "link", "folder", "pipe"}
