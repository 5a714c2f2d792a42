"""What must hold on every device; on a machine with a GPU, `make gpu` runs this file there."""

import contextlib

import pytest
import torch
from torch.utils._pytree import tree_map

from tvae_lib.rng import stream
from tvae_lib.runs.evaluate import judge
from tvae_lib.runs.execute import device_name, execute
from tvae_lib.system.vae import DecoderB
from tvae_lib.training import recording
from tvae_lib.training.config import make_config
from tvae_lib.training.state import Controls, initial_state
from tvae_lib.training.trainer import Trainer

SMALL = {"holdout": 0.9, "total_epochs": 4, "eval_every": 2, "eval_samples": 8192, "final_samples": 8192}


def in_float64(state):
    return {name: t.double() if t.is_floating_point() else t for name, t in state.items()}


def test_step_is_the_same_on_every_device(device):
    if device.type == "cpu":
        pytest.skip("the CPU is what the others are compared with")
    config = make_config(**SMALL)
    cpu = Trainer(config, "cpu")
    batch, noise = next(iter(cpu.batches(0)))
    results = []
    for place in (torch.device("cpu"), device):
        trainer = Trainer(config, place)
        state, controls = trainer.scheduled(in_float64(initial_state(config, place)), trainer.prescribed(0), 0)
        controls = Controls(*(c.double() for c in controls))
        moved = tuple(part.to(place).double() for part in batch)
        for _ in range(5):
            state, record = trainer.step(state, moved, noise.to(place).double(), controls)
        results.append((state["theta"].cpu(), record.cpu()))
    (theta, record), (other_theta, other_record) = results
    torch.testing.assert_close(other_record, record, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(other_theta, theta, rtol=1e-7, atol=1e-7)


def test_generation_agrees_between_devices(device):
    torch.manual_seed(0)
    decoder = DecoderB()
    verdicts = []
    for place in (torch.device("cpu"), device):
        generator = stream(0, 0, "device", place)
        verdicts.append(judge(decoder.to(place), 16, 2**18, (10_000,), generator)[0])
    one, other = verdicts
    assert other["kl_uniform"] == pytest.approx(one["kl_uniform"], abs=5 * one["kl_uniform_error"] + 1e-4)
    assert other["coverage"]["10000"] == pytest.approx(one["coverage"]["10000"], abs=5 * 0.0017)


def test_a_run_is_trained_stopped_and_continued(device, tmp_path):
    for epochs in (2, 4):
        run = execute(make_config(**SMALL, device=str(device), epochs=epochs, run_dir=str(tmp_path / "stopped")))
    assert run.metrics["epochs"] == 4
    assert run.history["loss"].notna().all()
    assert len(run.timing["sessions"]) == 2
    assert run.timing["sessions"][0]["device"] == device_name(device)
    if device.type == "cpu":
        whole = execute(make_config(**SMALL, device="cpu", run_dir=str(tmp_path / "whole")))
        assert (whole.path / "model.safetensors").read_bytes() == (run.path / "model.safetensors").read_bytes()


def test_a_run_begun_on_one_device_goes_on_on_another(device, tmp_path):
    execute(make_config(**SMALL, device=str(device), epochs=2, run_dir=str(tmp_path)))
    run = execute(make_config(**SMALL, device="cpu", run_dir=str(tmp_path)))
    assert run.metrics["epochs"] == 4


def test_steps_read_nothing_back_from_the_device(device):
    if device.type != "cuda":
        pytest.skip("only a GPU can be made to report synchronisation; on the CPU see test_training")
    trainer = Trainer(make_config(**SMALL), device)
    state, controls = trainer.scheduled(initial_state(trainer.config, device), trainer.prescribed(0), 0)
    batches = list(trainer.batches(0))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch, noise in batches:
            state, _ = trainer.step(state, batch, noise, controls)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_hastened_epochs_are_the_epochs_of_the_plain_step(device):
    trainer = Trainer(make_config(**SMALL), device)
    state = plain = initial_state(trainer.config, device)
    for _ in range(2):
        plain = trainer.epoch(plain)
    trainer.threads = []  # on a CPU without fused pieces, which round otherwise
    trainer.hasten(state)
    for _ in range(2):
        state = trainer.epoch(state)
    exact = {"rtol": 0, "atol": 0} if device.type == "cpu" else {"rtol": 1e-3, "atol": 1e-5}
    for name in ("theta", "moment_1", "norms", "lambdas", "lr"):
        torch.testing.assert_close(state[name], plain[name], **exact)


def test_a_cuda_graph_copies_in_and_out(monkeypatch):
    """The bookkeeping around a captured graph, with a stand-in that computes when it is replayed."""

    def tape(state, factor):
        return {"x": state["x"] * factor}, state["x"].sum()

    for name in ("Stream", "current_stream", "CUDAGraph"):
        monkeypatch.setattr(torch.cuda, name, lambda: type("Any", (), {"wait_stream": lambda *_: None})())
    for name in ("stream", "graph", "device"):
        monkeypatch.setattr(torch.cuda, name, lambda *_, **__: contextlib.nullcontext())
    example = ({"x": torch.ones(3)}, torch.tensor(2.0))
    graph = recording.CudaGraph(tape, example)
    compute = lambda: tree_map(lambda place, new: place.copy_(new), graph.results, tape(*graph.arguments))  # noqa: E731
    monkeypatch.setattr(graph.graph, "replay", compute, raising=False)
    state, factor = {"x": torch.arange(3.0)}, torch.tensor(3.0)
    first, total = graph(state, factor)
    second, _ = graph(first, factor)
    assert first["x"].tolist() == [0, 3, 6], "a later replay must not change an earlier result"
    assert second["x"].tolist() == [0, 9, 18]
    assert total.item() == 3
    assert state["x"].tolist() == [0, 1, 2]
    assert example[0]["x"].tolist() == [1, 1, 1]
