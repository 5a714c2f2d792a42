"""The step against a plain transcription of the equations, and the properties that the book relies on."""

import math

import pytest
import torch
from torch import nn

from studies.single import SingleStep
from tvae_lib.operations import SIZE, all_operations
from tvae_lib.system import losses, schedules, statenet
from tvae_lib.system.losses import soft_entropy
from tvae_lib.training.config import make_config
from tvae_lib.training.state import (
    HISTORY,
    RECORD,
    Controls,
    flatten,
    initial_state,
    prescribe,
    trained,
    untrained,
    weights_kept,
)
from tvae_lib.training.trainer import Step, Trainer, adamw_update, along_epoch, schedule, state_vector, stepped

CPU = torch.device("cpu")


SMALL = {"device": "cpu", "holdout": 0.9}


def column(state, name):
    return state["history"][: int(state["epoch"]), list(HISTORY).index(name)]


def train(epochs, **parameters):
    trainer = Trainer(make_config(**(SMALL | parameters)), CPU)
    state = initial_state(trainer.config, CPU)
    for _ in range(epochs):
        state = trainer.epoch(state)
    return trainer, state


def in_float64(trainer):
    """The same batches and initial state, all settings in double precision: rounding cannot hide a wrong equation."""
    batches, config = trainer.batches, trainer.config
    exact = lambda values: torch.tensor(values, dtype=torch.float64)  # noqa: E731
    trainer.prescribed = lambda epoch: Controls(*map(exact, prescribe(config, epoch)))
    trainer.batches = lambda epoch: (
        (tuple(part.double() for part in pair), noise.double()) for pair, noise in batches(epoch)
    )
    state = {name: t.double() if t.is_floating_point() else t for name, t in initial_state(config, CPU).items()}
    lambdas = exact([config.lambda_1, config.lambda_2, config.lambda_3])
    return state | {"lr": exact(config.lr), "lambdas": lambdas}


def counted_entropy(z):
    """The entropy of the codes by a histogram of each coordinate, straight from equation eq-entropy."""
    shares = [torch.histc(column.detach(), 50, -3.0, 3.0) for column in z.T]
    shares = [counts / counts.sum() for counts in shares]
    return -sum((p[p > 0] * (p[p > 0] / 0.12).log()).sum() for p in shares)


def plain_epochs(config, epochs):
    """The document's equations with nn.Module, torch.optim and floats: lr and lambda constant (StateNet off)."""
    entropy = soft_entropy if config.histogram == "soft" else counted_entropy
    trainer = Trainer(config, CPU)
    in_float64(trainer)
    model = untrained(config)[0].double()
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    averages, lambdas, rho, gate = None, (config.lambda_1, config.lambda_2, config.lambda_3), 0.0, 0.0
    totals = []
    for epoch in range(epochs):
        t = epoch * 400 / config.total_epochs
        before = (epoch - 1) * 400 / config.total_epochs
        rho = schedules.permeability(t, before, *torch.tensor([rho, gate], dtype=torch.float64)).item()
        tau_A, tau_B = schedules.temperature_A(t), schedules.temperature_B(t)
        beta_A, beta_B = schedules.beta_A(t), schedules.beta_B(t)
        for (x, indicators), noise in trainer.batches(epoch):
            (mu_A, s_A), (mu_B, s_B) = model.A.encoder(x), model.B.encoder(x)
            z_A = mu_A + tau_A * (s_A / 2).exp() * noise[0]
            z_B = mu_B + tau_B * (s_B / 2).exp() * noise[1]
            logits_A = model.A.decoder((1 - rho) * z_A + rho * z_B.detach())
            logits_B = model.B.decoder((1 - rho) * z_B + rho * z_A.detach())
            classes = indicators.argmax(-1).flatten()
            ce_A, ce_B = (
                nn.functional.cross_entropy(logits.flatten(0, 1), classes, reduction="sum") / len(x)
                for logits in (logits_A, logits_B)
            )
            kl_A, kl_B = (-0.5 * (1 + s - m**2 - s.exp()).sum(1).mean() for m, s in ((mu_A, s_A), (mu_B, s_B)))
            p = logits_B.softmax(-1).mean(0)
            distances = (z_B.unsqueeze(0) - z_B.unsqueeze(1)).square().sum(-1)
            loss_A = ce_A + beta_A * kl_A
            loss_B = ce_B + beta_B * kl_B + config.alpha_ent * (p * p.log()).sum()
            loss_B = loss_B + config.alpha_rep * torch.exp(-distances / (2 * config.sigma_rep**2)).mean()
            align = (entropy(z_A) - entropy(z_B)).abs()
            g_A = g_B = 1.0
            if averages:
                g_A = min(max(averages[1] / averages[0], 0.5), 2.0)
                g_B = min(max(averages[0] / averages[1], 0.5), 2.0)
            total = lambdas[0] * g_A * loss_A + lambdas[1] * g_B * loss_B + lambdas[2] * align
            optimiser.zero_grad()
            total.backward()
            norms = [
                math.sqrt(sum(p.grad.square().sum().item() for p in vae.parameters())) for vae in (model.A, model.B)
            ]
            if averages:
                alpha = 0.95 if 0.8 < averages[1] / averages[0] < 1.2 else 0.9
                averages = [alpha * old + (1 - alpha) * new for old, new in zip(averages, norms, strict=True)]
            else:
                averages = norms
            optimiser.step()
            values = [total, loss_A, loss_B, g_A * loss_A, g_B * loss_B, ce_A, kl_A, ce_B, kl_B, (p * p.log()).sum()]
            values += [torch.exp(-distances / (2 * config.sigma_rep**2)).mean(), align, 0.0, 0.0, 0.0, 0.0]
            values += [entropy(z_A), entropy(z_B), g_A, g_B, *norms]
            totals.append([value.item() if isinstance(value, torch.Tensor) else value for value in values])
        gate = float(0.8 < averages[1] / averages[0] < 1.2)
    return totals, model


@pytest.mark.parametrize(("total_epochs", "histogram"), [(400, "hard"), (6, "hard"), (6, "soft")])
def test_step_is_the_plain_transcription_of_the_equations(total_epochs, histogram):
    config = make_config(statenet="off", batch_size=128, total_epochs=total_epochs, histogram=histogram, **SMALL)
    totals, model = plain_epochs(config, 5)
    trainer = Trainer(config, CPU)
    state = in_float64(trainer)
    for _ in range(5):
        state = trainer.epoch(state)
    steps = len(totals) // 5
    means = torch.tensor(totals, dtype=torch.float64).view(5, steps, -1).mean(1)
    names = RECORD[: means.shape[1]]
    assert names[-1] == "norm_B"
    for name, expected in zip(names, means.T, strict=True):
        assert column(state, name).tolist() == pytest.approx(expected.tolist(), rel=1e-6), name
    torch.testing.assert_close(state["theta"], flatten(model), rtol=1e-5, atol=1e-5)


def plain_repaired(config, epochs):
    """The repaired equations with nn.Module, torch.optim and floats, StateNet off: the model, and records of steps."""
    trainer = Trainer(config, CPU)
    in_float64(trainer)
    model = untrained(config)[0].double()
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    every = all_operations().long()
    memories, averages, totals, rho = [torch.full((SIZE,), 1 / SIZE, dtype=torch.float64)] * 2, None, [], 0.5
    for epoch in range(epochs):
        t = epoch * 400 / config.total_epochs
        beta, gamma = 0.3 + 0.68 * t / 400, 16 ** (t / 400)
        optimiser.param_groups[0]["lr"] = config.lr * (1 + math.cos(math.pi * t / 400)) / 2
        for (x, indicators), noise in trainer.batches(epoch):
            n, quarter, losses, norms, ces = len(x), -(-len(x) // 4), [], [], []
            posteriors = [vae.encoder(x) for vae in (model.A, model.B)]
            z = [m + (s / 2).exp() * noise[i, :n] for i, (m, s) in enumerate(posteriors)]
            for i, vae in enumerate((model.A, model.B)):

                def ce(codes, count):
                    logits = vae.decoder(codes[:count]).flatten(0, 1)  # noqa: B023 - used at once
                    classes = indicators[:count].argmax(-1).flatten()  # noqa: B023
                    return nn.functional.cross_entropy(logits, classes, reduction="sum") / count

                m, s = posteriors[i]
                kl = -0.5 * (1 + s - m**2 - s.exp()).sum(1).mean()
                p = vae.decoder(noise[i, n:]).softmax(-1)
                p = torch.stack([p[:, j, every[:, j] + 1] for j in range(9)]).prod(0).mean(0)
                again = SIZE * (memories[i] * p).sum() - 1
                memories[i] = 0.998 * memories[i] + 0.002 * p.detach()
                ces.append(ce(z[i], n))
                losses.append(ces[i] + rho * ce(z[1 - i].detach(), quarter) + beta * kl + gamma * again)
            align = ((z[0].var(0).log().sum() - z[1].var(0).log().sum()) / 2) ** 2 / 2
            g = (averages[1] / averages[0]) ** 0.5 if averages else 1.0
            g = [min(max(factor, 0.5), 2) for factor in (g, 1 / g)]
            scales = [0.7 * factor for factor in g]
            optimiser.zero_grad()
            (scales[0] * losses[0] + scales[1] * losses[1] + 0.3 * align).backward()
            for scale, vae in zip(scales, (model.A, model.B), strict=True):
                norms.append(math.sqrt(sum(p.grad.square().sum().item() for p in vae.parameters())) / scale)
            alpha = 0.95 if averages and 0.8 < averages[1] / averages[0] < 1.2 else 0.9
            averages = [alpha * a + (1 - alpha) * b for a, b in zip(averages or norms, norms, strict=True)]
            optimiser.step()
            totals.append([part.item() for part in (*losses, *ces, align)])
    return totals, model


def test_repaired_step_is_the_plain_transcription_of_its_equations():
    config = make_config(preset="repaired", statenet="off", batch_size=128, total_epochs=6, prior_samples=8, **SMALL)
    totals, model = plain_repaired(config, 5)
    trainer = Trainer(config, CPU)
    state = in_float64(trainer)
    for _ in range(5):
        state = trainer.epoch(state)
    means = torch.tensor(totals, dtype=torch.float64).view(5, -1, 5).mean(1)
    for name, expected in zip(("loss_A", "loss_B", "ce_A", "ce_B", "alignment"), means.T, strict=True):
        assert column(state, name).tolist() == pytest.approx(expected.tolist(), rel=1e-6), name
    torch.testing.assert_close(state["theta"], flatten(model), rtol=1e-5, atol=1e-5)


def test_the_weights_kept_are_a_moving_average_that_does_not_act():
    config, plain = (make_config(preset="repaired", averaging=alpha, **SMALL) for alpha in (0.9, 0.0))
    trainer = Trainer(config, CPU)
    state = in_float64(trainer)
    average, passed = state["theta"].clone(), []
    trainer.take = lambda *given: passed.append(trainer.step(*given)) or passed[-1]
    state = trainer.epoch(state)
    for taken, _ in passed:
        average = 0.9 * average + 0.1 * taken["theta"]
    torch.testing.assert_close(weights_kept(state), average)
    torch.testing.assert_close(flatten(trained(state, config)), average.float())
    other = Trainer(plain, CPU)
    last = other.epoch(in_float64(other))
    assert "average" not in last
    assert torch.equal(last["theta"], state["theta"])
    assert torch.equal(weights_kept(last), last["theta"])


def test_the_direction_of_an_epoch_and_what_statenet_follows():
    """By the definition: the mean over an epoch of its gradients along the move of the epoch before, and a cosine."""
    config = make_config(preset="repaired", alignment=False, **SMALL)
    trainer = Trainer(config, CPU)
    state = trainer.epoch(in_float64(trainer))
    began, start = trainer.scheduled(state, trainer.prescribed(1), 1)[0], in_float64(trainer)
    lr = start["lr"] * trainer.prescribed(0).lr_factor
    torch.testing.assert_close(state["update"], (start["theta"] - state["theta"]) / lr)
    theta, products = state["theta"], []
    after = trainer.epoch(state)
    began = trainer.steered(began, trainer.prescribed(1))[0]
    controls = trainer.scheduled(state, trainer.prescribed(1), 1)[1]
    taken = stepped(began)
    for batch, noise in trainer.batches(1):
        leaf = taken["theta"].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(trainer.step.loss(leaf, taken, batch, noise, controls)[0], leaf)
        products.append(torch.dot(gradient, state["update"]).item())
        taken, _ = trainer.step(taken, batch, noise, controls)
    assert not torch.equal(theta, taken["theta"])
    assert column(after, "hypergradient")[1].item() == pytest.approx(-sum(products) / len(products), rel=1e-6)
    means = dict(zip(RECORD, after["averages"], strict=True))
    cosine = -means["hypergradient"] / (math.hypot(means["norm_A"], means["norm_B"]) * state["update"].norm())
    followed = along_epoch(after["averages"], state["update"], state["lr"])
    assert followed.item() == pytest.approx(-(cosine / state["lr"]).item())
    assert abs(cosine) < 1


def test_reference_trajectory_is_the_plain_loop_s_over_five_epochs():
    """As the reference run goes, at batch 512 from a recording, but in float64: rounding of float32 grows too fast."""
    config = make_config(statenet="off", device="cpu")
    totals, _ = plain_epochs(config, 5)
    trainer = Trainer(config, CPU)
    state = in_float64(trainer)
    trainer.hasten(state)
    assert trainer.take is not trainer.step
    for _ in range(5):
        state = trainer.epoch(state)
    means = torch.tensor(totals, dtype=torch.float64).view(5, -1, len(totals[0])).mean(1)
    for name, expected in zip(RECORD, means.T, strict=False):
        assert column(state, name).tolist() == pytest.approx(expected.tolist(), rel=1e-4), name


def scaled_trajectory(factor, epsilon):
    """VAE-A's parameters after 25 AdamW steps in single precision, its loss multiplied by a factor."""
    vae = untrained(make_config(**SMALL))[0].A
    step = SingleStep(vae, 1e-4)
    theta, first, second, count, _ = step.initial()
    for (trits, indicators), noise in list(Trainer(make_config(**SMALL, batch_size=64), CPU).batches(0))[:25]:
        theta = theta.detach().requires_grad_()
        loss = factor * step.loss(theta, (trits, indicators), noise[0], 0.5, 1.0)
        (gradient,) = torch.autograd.grad(loss, theta)
        theta, count = theta.detach(), count + 1
        update, first, second = adamw_update(theta, gradient, first, second, count, 1e-4, epsilon)
        theta = theta - 1e-3 * update
    return theta


@pytest.fixture(scope="module")
def unscaled():
    return scaled_trajectory(1.0, 1e-8)


@pytest.mark.parametrize("factor", [2.0, 0.125, 1024.0])
def test_adamw_cancels_a_power_of_two_to_the_last_bit(factor, unscaled):
    assert torch.equal(scaled_trajectory(factor, factor * 1e-8), unscaled)


@pytest.mark.parametrize(("factor", "epsilon"), [(3.0, 3e-8), (0.7, 0.7e-8), (2.0, 1e-8), (0.125, 1e-8)])
def test_adamw_does_not_cancel_other_factors_nor_without_its_epsilon(factor, epsilon, unscaled):
    assert not torch.equal(scaled_trajectory(factor, epsilon), unscaled)


def test_adamw_is_torch_s(rng):
    target = torch.randn(50, generator=rng)
    mine = torch.randn(50, generator=rng)
    theirs = nn.Parameter(mine.clone())
    optimiser = torch.optim.AdamW([theirs], lr=0.01, weight_decay=0.1)
    moments = (torch.zeros(50), torch.zeros(50))
    for step in range(1, 30):
        update, *moments = adamw_update(mine, 2 * (mine - target), *moments, torch.tensor(float(step)), 0.1)
        mine = mine - 0.01 * update
        optimiser.zero_grad()
        (theirs - target).square().sum().backward()
        optimiser.step()
    torch.testing.assert_close(mine, theirs.detach(), rtol=1e-5, atol=1e-6)


def terms_jacobian(**parameters):
    config = make_config(**(SMALL | parameters))
    trainer = Trainer(config, CPU)
    _, controls = schedule(initial_state(config, CPU), 200, config.total_epochs, trainer.prescribed(200))
    state, controls = initial_state(config, CPU), controls._replace(rho=torch.tensor(0.5))
    batch, noise = next(iter(trainer.batches(0)))
    step = trainer.step
    jacobian = torch.func.jacrev(lambda theta: step.terms(theta, batch, noise, controls)[0])(state["theta"])
    return {
        name: (row[: step.sizes[0]], row[step.sizes[0] :]) for name, row in zip(losses.TERMS, jacobian, strict=True)
    }


def test_theorem_1_gradients_between_the_pathways_are_exactly_zero():
    parts = terms_jacobian()
    for term in ("ce_A", "kl_A"):
        assert parts[term][1].count_nonzero() == 0
        assert parts[term][0].count_nonzero() > 0
    for term in ("ce_B", "kl_B", "negentropy", "repulsion"):
        assert parts[term][0].count_nonzero() == 0
        assert parts[term][1].count_nonzero() > 0


def test_alignment_by_a_soft_histogram_is_the_term_that_couples_the_gradients():
    on_A, on_B = terms_jacobian(histogram="soft")["alignment"]
    assert on_A.norm() > 0
    assert on_B.norm() > 0
    assert all(part.count_nonzero() == 0 for part in terms_jacobian()["alignment"])


@pytest.mark.parametrize(
    "parameters",
    [
        {"cross_injection": False},
        {"alignment": False, "histogram": "soft"},
        {"alpha_ent": 0.0},
        {"alpha_rep": 0.0},
        {"gradient_balance": False},
        {"statenet": "off"},
        {"phases": False},
        {"pathways": "A"},
        {"pathways": "B"},
        {"preset": "bare"},
        {"preset": "repaired", "diversity": 0.0},
    ],
    ids=lambda p: "-".join(f"{k}={v}" for k, v in p.items()),
)
def test_every_mechanism_can_be_switched_off(parameters):
    trainer, state = train(2, total_epochs=4, **parameters)
    _, full = train(2, total_epochs=4, histogram=trainer.config.histogram)
    assert state["theta"].isfinite().all()
    assert not torch.equal(state["theta"], full["theta"])
    config, last = trainer.config, {name: column(state, name)[-1].item() for name in HISTORY}
    if not config.cross_injection or config.pathways != "AB":
        assert last["rho"] == 0
    if not config.alignment or config.pathways != "AB":
        assert last["alignment"] == 0
    if not config.alpha_ent:
        assert last["negentropy"] == 0
    if not config.alpha_rep:
        assert last["repulsion"] == 0
    if not config.gradient_balance or config.pathways != "AB":
        assert last["g_A"] == last["g_B"] == 1
    if config.statenet == "off":
        assert last["delta_lr"] == 0
        assert last["lambda_1"] == pytest.approx(0.7)
    if not config.phases:
        assert last["tau_A"] == last["tau_B"] == 1


@pytest.mark.parametrize("pathway", ["A", "B"])
def test_a_pathway_that_rests_keeps_its_weights(pathway):
    trainer, state = train(1, pathways=pathway)
    start, size = flatten(untrained(trainer.config)[0]), trainer.step.sizes[0]
    moved = state["theta"] != start
    resting = moved[size:] if pathway == "A" else moved[:size]
    assert not resting.any()
    assert moved.any()


def test_batches_are_the_permutation_wrapped_to_whole_batches():
    trainer = Trainer(make_config(batch_size=500, **SMALL), CPU)
    count = len(trainer.training)
    batches = [trits for (trits, _), _ in trainer.batches(3)]
    rows = torch.cat(batches)
    assert all(len(b) == 500 for b in batches)
    assert len(rows.unique(dim=0)) == count
    assert torch.equal(rows[count:], rows[: len(rows) - count])
    assert torch.equal(rows, torch.cat([trits for (trits, _), _ in trainer.batches(3)]))
    assert not torch.equal(rows, torch.cat([trits for (trits, _), _ in trainer.batches(4)]))


def test_history_has_a_value_in_every_column_of_every_epoch():
    _, state = train(3)
    assert state["history"][:3].isfinite().all()
    assert column(state, "epoch").tolist() == [1, 2, 3]
    slope = column(state, "g_A")[0] * column(state, "loss_A")[0]
    assert column(state, "slope_1")[0] == pytest.approx(slope.item(), rel=0.1)


def test_statenet_acts_from_the_second_epoch_by_its_rules():
    _, state = train(2)
    first, second = column(state, "delta_lr").tolist()
    assert first == 0
    assert second != 0
    lr = column(state, "lr")
    assert lr[1].item() == pytest.approx(lr[0].item() * (1 + 0.05 * second), rel=1e-5)
    delta, lam = column(state, "delta_1"), column(state, "lambda_1")
    assert lam[1].item() == pytest.approx(lam[0].item() + 0.01 * delta[1].item(), rel=1e-5)


def test_state_vector_reads_the_epoch_before_and_the_settings_now():
    trainer, state = train(2)
    now, _ = schedule(state, 2, 400, trainer.prescribed(2))
    vector = state_vector(now)
    names = ["entropy_A", "entropy_B", "kl_A", "kl_B", "grad_ratio"]
    assert vector[:5].tolist() == pytest.approx([column(state, n)[-1].item() for n in names], rel=1e-6)
    assert vector[5:].tolist() == pytest.approx([now["rho"].item(), *state["lambdas"].tolist()])


def test_statenet_at_every_step_acts_and_learns_as_often():
    """From the second step on: before it there is nothing to read."""
    trainer, once = train(2)
    _, often = train(2, statenet_acts="step")
    steps = len(list(trainer.batches(0)))
    assert once["statenet_step"] == 1
    assert often["statenet_step"] == 2 * steps - 1
    assert not torch.equal(once["statenet_theta"], often["statenet_theta"])
    lr, moved = 0.001, column(often, "delta_lr")
    assert moved.abs().max() < 1
    assert column(often, "lr")[-1].item() != pytest.approx(lr * (1 + 0.05 * moved[-1].item()), rel=1e-6)


def test_a_hard_histogram_moves_nothing():
    _, aligned = train(2, histogram="hard", statenet="off")
    _, without = train(2, histogram="hard", statenet="off", alignment=False)
    assert column(aligned, "alignment").min() > 0
    torch.testing.assert_close(aligned["theta"], without["theta"], rtol=0, atol=0)


def test_norms_before_their_scales_are_those_of_the_losses():
    """At first both factors are 1 and both lambdas 0.7."""
    _, scaled = train(1, alignment=False, gradient_balance=False)
    _, raw = train(1, alignment=False, gradient_balance=False, raw_norms=True)
    torch.testing.assert_close(raw["norms"], scaled["norms"] / 0.7)


@pytest.mark.parametrize("reading", [{"repelled": "means"}, {"entropy_of": "untempered"}, {"last_relu": True}])
def test_a_reading_changes_what_it_names(reading):
    _, base = train(1, statenet="off", tau_floor=0.05)
    _, other = train(1, statenet="off", tau_floor=0.05, **reading)
    names = {"repelled": "repulsion", "entropy_of": "entropy_B", "last_relu": "ce_B"}
    name = names[next(iter(reading))]
    assert column(base, name) != column(other, name)
    assert column(base, "ce_A")[0] == pytest.approx(column(other, "ce_A")[0].item(), rel=0.02)


@pytest.mark.parametrize("mode", statenet.MODES)
def test_modes_of_statenet_train_what_they_should(mode):
    trainer, state = train(4, statenet=mode)
    start = flatten(untrained(trainer.config)[1])
    assert torch.equal(state["statenet_theta"], start) == (mode == "off")


@pytest.mark.parametrize("decay", ["none", "cosine"])
@pytest.mark.parametrize("mode", ["detached", "backprop", "hypergradient"])
def test_statenet_is_trained_by_its_objective_with_torch_s_adamw(mode, decay):
    trainer, state = train(4, statenet=mode, lr_decay=decay, total_epochs=8)
    config, net = trainer.config, untrained(trainer.config)[1]
    optimiser = torch.optim.AdamW(net.parameters(), lr=config.statenet_lr, weight_decay=config.weight_decay)
    rows = {name: column(state, name) for name in HISTORY}
    factors = [schedules.cosine_factor(schedules.clock(e, 8)) if decay == "cosine" else 1.0 for e in range(4)]
    for epoch in range(1, 4):
        before = torch.stack([rows[f"lambda_{i}"][epoch - 1] for i in (1, 2, 3)]).float()
        averages = [rows[name][epoch - 1] for name in statenet.STATE[:5]]
        inputs = torch.cat([torch.stack([*averages, rows["rho"][epoch]]).float(), before])
        corrections = net(inputs)
        assert corrections.tolist() == pytest.approx([rows[n][epoch].item() for n in statenet.CORRECTIONS], abs=1e-4)
        slopes = torch.stack([rows[name][epoch] for name in ("slope_1", "slope_2", "alignment")]).float()
        loss = corrections.square().sum()
        if mode != "detached":
            loss = loss + torch.dot(slopes, 0.01 * corrections[1:])
        if mode == "hypergradient":
            lr = (rows["lr"][epoch - 1] / factors[epoch - 1]).float()
            loss = loss + rows["hypergradient"][epoch].float() * factors[epoch] * lr * 0.05 * corrections[0]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    torch.testing.assert_close(flatten(net), state["statenet_theta"], rtol=1e-4, atol=1e-5)


def test_constant_temperature_is_taken_as_it_is():
    _, state = train(1, phases=False, tau=0.0)
    assert column(state, "tau_A").item() == 0


def test_hypergradient_is_the_derivative_of_the_loss_by_the_learning_rate():
    trainer, state = train(1)
    step, (batch, noise) = trainer.step, next(iter(trainer.batches(5)))
    acted, controls = trainer.scheduled(state, trainer.prescribed(1), 1)
    after, _ = step(acted, batch, noise, controls)
    batch, noise = list(trainer.batches(5))[1]
    _, record = step(after, batch, noise, controls)
    measured = record[-1].item()

    def loss_at(lr):
        theta = acted["theta"].double() - lr * after["update"].double()
        weights, _ = step.weights(after, controls)
        pair = tuple(part.double() for part in batch)
        terms, *_ = step.terms(theta, pair, noise.double(), Controls(*(c.double() for c in controls)))
        return torch.dot(weights.double(), terms).item()

    lr, h = acted["lr"].item(), 1e-7
    assert measured == pytest.approx((loss_at(lr + h) - loss_at(lr - h)) / (2 * h), rel=1e-2, abs=1e-3)


def test_gradient_shares_sum_to_one_and_leave_the_state_alone():
    trainer, state = train(1)
    before = {name: tensor.clone() for name, tensor in state.items()}
    shares = trainer.gradient_shares(state)
    torch.testing.assert_close(shares.sum(0), torch.ones(2), rtol=1e-4, atol=1e-4)
    assert (shares[:2, 1] == 0).all()
    assert (shares[2:6, 0] == 0).all()
    assert all(torch.equal(before[name], state[name]) for name in ("theta", "rho", "norms", "lr"))


def test_gradients_of_the_terms_sum_to_the_gradient_of_the_total():
    trainer, state = train(2, histogram="soft", injection="in turn", diversity=2.0, diversity_end=4.0, prior_samples=64)
    state, controls = schedule(state, 2, 400, trainer.prescribed(2))
    batch, noise = next(iter(trainer.batches(2)))
    theta = state["theta"].clone().requires_grad_()
    weights, _ = trainer.step.weights(state, controls)
    terms, *_ = trainer.step.terms(theta, batch, noise, controls, state["memory"])
    each = [torch.autograd.grad(t, theta, retain_graph=True)[0] for t in weights.detach() * terms]
    loss, _ = trainer.step.loss(theta, state, batch, noise, controls)
    torch.testing.assert_close(torch.dot(weights, terms), loss)
    (total,) = torch.autograd.grad(torch.dot(weights, terms), theta)  # of the same pass: no rectifier may flip
    torch.testing.assert_close(sum(each), total, rtol=1e-4, atol=1e-6)
    assert all(gradient.norm() > 0 for gradient in each)


def test_step_never_leaves_the_device(monkeypatch):
    trainer, state = train(1)
    state, controls = schedule(state, 1, 400, trainer.prescribed(1))
    batch, noise = next(iter(trainer.batches(1)))

    def forbidden(*_):
        raise AssertionError("the step read a value on the host")

    for name in ("item", "tolist", "__bool__", "__float__", "__int__", "__index__", "numpy"):
        monkeypatch.setattr(torch.Tensor, name, forbidden)
    Step.__call__(trainer.step, state, batch, noise, controls)
