"""Random numbers as functions of (seed, epoch, purpose): a resumed run needs no history of draws."""

import hashlib

import torch


def stream(seed: int, epoch: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on `device` for one purpose in one epoch of one seed; equal arguments, equal numbers."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{purpose}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "little"))
