"""The state of a training: flat vectors and modules, initial weights, the last row of the history."""

import torch

from tvae_lib.system.dual import DualVAE
from tvae_lib.training.config import make_config
from tvae_lib.training.state import HISTORY, flatten, history_row, initial_state, load, trained, unflatten, untrained


def test_flat_vector_and_modules_hold_the_same_parameters():
    model, _ = untrained(make_config(device="cpu"))
    flat = flatten(model)
    assert flat.shape == (167_702,)
    for name, value in unflatten(flat, model).items():
        assert torch.equal(value, model.get_parameter(name))
    with torch.device("meta"):
        copy = load(DualVAE(), flat)
    assert torch.equal(flatten(copy), flat)


def test_initial_weights_are_a_function_of_the_seed_and_leave_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = flatten(untrained(make_config(seed=1, device="cpu"))[0])
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first, flatten(untrained(make_config(seed=1, device="cpu"))[0]))
    assert not torch.equal(first, flatten(untrained(make_config(seed=2, device="cpu"))[0]))


def test_last_row_of_the_history_is_named():
    config = make_config(device="cpu", total_epochs=3)
    state = initial_state(config, torch.device("cpu"))
    state["history"][:2] = torch.arange(2 * len(HISTORY)).view(2, -1)
    row = history_row(state | {"epoch": torch.tensor(2)})
    assert list(row) == list(HISTORY)
    assert list(row.values()) == [*range(len(HISTORY), 2 * len(HISTORY))]


def test_trained_modules_have_the_parameters_of_the_state_and_the_class_asked_for():
    class Other(DualVAE):
        pass

    config = make_config(device="cpu", latent=3)
    state = initial_state(config, torch.device("cpu"))
    model = trained(state, config, Other)
    assert type(model) is Other
    assert not model.training
    assert torch.equal(flatten(model), state["theta"])
