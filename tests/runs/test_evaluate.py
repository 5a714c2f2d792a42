"""What is measured of a run while it trains and when it ends."""

import pytest
import torch
from shared import FAST, Constant, start

from tvae_lib.coverage import uniform_coverage
from tvae_lib.measures.reconstruction import exact_shares
from tvae_lib.operations import ENTROPY, SIZE
from tvae_lib.rng import stream
from tvae_lib.runs.evaluate import judge
from tvae_lib.training.config import make_config
from tvae_lib.training.trainer import Trainer


def test_coverage_of_a_uniform_decoder_meets_the_bound():
    verdict, log_p, _ = judge(Constant(torch.zeros(9, 3)), 2, 1_024, (10_000, 50_000), stream(0, 0, "judge"))
    for draws in (10_000, 50_000):
        assert verdict["coverage"][str(draws)] == pytest.approx(uniform_coverage(draws), abs=5 * 0.0017)
    assert verdict["coverage_argmax"]["50000"] == pytest.approx(1 / SIZE)
    assert verdict["coverage_rounded"]["50000"] == pytest.approx(1 / SIZE)
    assert verdict["min_log_p"] == pytest.approx(-ENTROPY, abs=1e-4)
    assert log_p.shape == (SIZE,)


def test_an_operation_that_no_sample_reaches_makes_the_divergence_infinite_not_a_number_in_json():
    logits = torch.full((9, 3), -1e4)
    logits[:, 0] = 0
    verdict, log_p, _ = judge(Constant(logits), 2, 1_024, (10,), stream(0, 0, "one"))
    assert verdict["kl_uniform"] is None
    assert verdict["coverage"]["10"] == pytest.approx(1 / SIZE)
    assert log_p[0] == 0


def test_evaluations_and_checkpoints_have_intervals_of_their_own(tmp_path):
    run = start(tmp_path / "run", eval_every=2, checkpoint_every=3, epochs=4)
    assert run.evaluations["epoch"].tolist() == [0, 2, 4]


def test_final_evaluation_is_that_of_the_saved_weights(whole):
    model = whole.model()
    everything = exact_shares(model, Trainer(make_config(**FAST), "cpu").trits, 0.7)
    parts = whole.metrics["reconstruction"]
    mixed = 0.1 * parts["training"]["alone_A"] + 0.9 * parts["held_out"]["alone_A"]
    assert everything["alone_A"] == pytest.approx(mixed, abs=1e-4)
    assert not torch.equal(whole.model(0).A.encoder.mean.weight, model.A.encoder.mean.weight)
