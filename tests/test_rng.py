import itertools

import torch

from tvae_lib.rng import stream


def test_a_stream_is_a_function_of_seed_epoch_and_purpose():
    cases = list(itertools.product((0, 1), (0, 1), ("order", "noise")))
    drawn = [tuple(torch.rand(3, generator=stream(*case)).tolist()) for case in cases]
    assert len(set(drawn)) == len(cases)
    assert drawn == [tuple(torch.rand(3, generator=stream(*case)).tolist()) for case in cases]
