"""The yardsticks of the benchmarks are what they say: the same system, and the right number of operations."""

import sys

import pytest
import torch

from studies import peers
from tvae_lib.training.config import ROOT, make_config
from tvae_lib.training.state import HISTORY, initial_state
from tvae_lib.training.trainer import Trainer

sys.path.insert(0, str(ROOT / "benchmarks"))
import bench
import plain
import single


def test_plain_loop_trains_the_same_system():
    torch.manual_seed(0)
    theirs = plain.train(2, 512, 0)
    trainer = Trainer(make_config(device="cpu"), "cpu")
    state = initial_state(trainer.config, trainer.device)
    for _ in range(2):
        state = trainer.epoch(state)
    for epoch, row in enumerate(theirs):
        ours = dict(zip(HISTORY, state["history"][epoch].tolist(), strict=True))
        for name in ("loss", "loss_A", "loss_B", "ce_A", "ce_B"):
            assert row[name] == pytest.approx(ours[name], rel=0.06), name  # another seed
        assert row["entropy_A"] == pytest.approx(ours["entropy_A"], rel=0.03)


def test_plain_coverage_of_an_untrained_decoder_is_near_the_bound():
    torch.manual_seed(0)
    assert plain.coverage(plain.DualVAE().A.decoder, 10_000) == pytest.approx(0.39, abs=0.02)


def test_floor_counts_the_matrix_products_by_hand():
    trainer = Trainer(make_config(device="cpu"), "cpu")
    encoder = 9 * 256 + 256 * 128 + 128 * 64 + 2 * 64 * 16
    decoders = (16 * 32 + 32 * 64 + 64 * 27) + (16 * 128 + 4 * 128 * 128 + 128 * 27)
    sample = 2 * (3 * (2 * encoder + decoders) - 2 * 9 * 256)
    flop = bench.floor_flop(trainer)
    sample += 2 * 2 * 512 * 16
    assert flop["training"] == 400 * 39 * 512 * sample
    assert flop["evaluation"] == 41 * 262_144 * (2 * decoders + 2 * 1.25 * 2 * 243 * 81)


def test_what_the_benchmark_times_can_be_done():
    trainer = Trainer(make_config(device="cpu", holdout=0.9, eval_samples=1024), "cpu")
    state = trainer.epoch(bench.start(trainer.config, trainer.device))
    tasks = bench.tasks_of(trainer, state, None)
    for name in ("epoch", "evaluation", "judgement"):
        tasks[name]()
    example = bench.begun(trainer, state)
    assert set(trainer.step(*example)[0]) == set(example[0])


def test_pyro_and_the_library_train_the_same_single_vae():
    losses = []
    for kind in (peers.WithPyro, single.WithLibrary):
        torch.manual_seed(0)
        trained = kind()
        losses.append([trained.epoch(512) for _ in range(3)])
    assert losses[0] == pytest.approx(losses[1], rel=0.005)
    assert losses[0][2] < losses[0][0]
