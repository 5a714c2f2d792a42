"""Chapter 7's trainings: the document's schedules over ten seeds, and what becomes of it under others."""

import torch
from torch import Tensor

from tvae_lib import ensemble, evaluation, schedules
from tvae_lib.config import Config, make_config
from tvae_lib.operations import SIZE, all_operations, expected_coverage
from tvae_lib.streams import stream
from tvae_lib.tables import Table
from tvae_lib.training import HISTORY, Controls, load, prescribe, untrained
from tvae_lib.vae import Posterior, tempered

SEEDS = range(10)  # of the document's schedules
FEWER = range(5)  # of the others
PHASE_4 = schedules.PHASE_STARTS[3]
CYCLE = range(PHASE_4 + 6, schedules.CLOCK + 1, 6)  # five times in each cycle of tau_A
STOPS = (10, 20, 40, 80, 120, 160, 200, 225, PHASE_4, *CYCLE)  # epochs at which both decoders are judged
SAMPLES = 2**17


def without_boost(config: Config, epoch: int) -> Controls:
    """The document's schedules, with the temperatures going on in phase 4 as before it."""
    base = schedules.temperature_base(epoch)
    wave = schedules.temperature_A(epoch) - base
    shrink = 0.1 * base / 0.5 if epoch >= PHASE_4 else 1.0
    falling = 0.9 + (0.2 - 0.9) * (epoch - 30) / schedules.CLOCK
    return prescribe(config, epoch)._replace(tau_A=base + shrink * wave, tau_B=falling)


def released(config: Config, epoch: int) -> Controls:
    """The document's schedules, with the coupling taken away in phase 4."""
    given = prescribe(config, epoch)
    return given._replace(phased=False, rho=0.0) if epoch >= PHASE_4 else given


def repaired(config: Config, epoch: int) -> Controls:
    """Schedules that do what the document says of its own: see chapter 7."""
    return prescribe(config, epoch)._replace(
        phased=False,
        rho=schedules.straight_permeability(epoch),
        tau_A=schedules.boosted_temperature_A(epoch),
        tau_B=schedules.boosted_temperature_B(epoch),
        beta_A=schedules.beta_A(epoch) * schedules.cycle(epoch, 0.0),
        beta_B=schedules.beta_B(epoch) * schedules.cycle(epoch, torch.pi),
    )


SCHEDULES = {  # name: what an epoch prescribes
    "document": prescribe,
    "without boost": without_boost,
    "released": released,
    "repaired": repaired,
}
BRANCHES = ("without boost", "released")  # of the document's training, at the start of phase 4


def phases() -> None:
    """The preset `document` under its own schedules and others, both decoders judged as they train: phases.csv."""
    table = Table("phases", ("schedule", "seed", "epoch"))
    for i in range(0, len(SEEDS), 2):
        branches = {branch: [seed for seed in SEEDS[i : i + 2] if seed in FEWER] for branch in BRANCHES}
        train(table, "document", SEEDS[i : i + 2], branches)
    for schedule in SCHEDULES:
        if schedule not in ("document", *BRANCHES):
            train(table, schedule, FEWER, {})


def train(table: Table, schedule: str, seeds, branches: dict[str, list[int]]) -> None:
    """Add to the table what it lacks of a schedule, and of others that branch off at the start of phase 4."""
    lacks = lambda name, seed: not table.has(schedule=name, seed=seed, epoch=max(STOPS))  # noqa: E731
    branches = {name: [seed for seed in chosen if lacks(name, seed)] for name, chosen in branches.items()}
    seeds = [seed for seed in seeds if lacks(schedule, seed) or any(seed in chosen for chosen in branches.values())]
    at_4, had = {}, {seed: {} for seed in seeds}
    for seed, state in _progress(table, schedule, seeds, STOPS, None, had):
        if int(state["epoch"]) == PHASE_4:
            at_4[seed] = state, had[seed][PHASE_4]
    for name, chosen in branches.items():
        start = [at_4[seed][0] for seed in chosen]
        had = {seed: {PHASE_4: at_4[seed][1]} for seed in chosen}
        list(_progress(table, name, chosen, tuple(stop for stop in STOPS if stop > PHASE_4), start, had))


def _progress(table: Table, schedule: str, seeds, stops, start, had):
    """Train, judge at every stop, add the rows of a run when it ends; yields (seed, state) at every stop."""
    configs = [make_config(seed=seed, device="cpu") for seed in seeds]
    rows = {seed: [] for seed in seeds}
    for place, state in ensemble.progress(configs, "cpu", stops, prescribe=SCHEDULES[schedule], start=start):
        seed = seeds[place]
        row, had[seed][int(state["epoch"])] = judge(configs[place], state, had[seed])
        rows[seed].append({"schedule": schedule, "seed": seed, **row})
        yield seed, state
        if len(rows[seed]) == len(stops) and not table.has(schedule=schedule, seed=seed, epoch=row["epoch"]):
            table.add(rows[seed])


@torch.no_grad()
def judge(config: Config, state, had: dict[int, dict[str, Tensor]]) -> tuple[dict[str, float], dict[str, Tensor]]:
    """What the pair generates, knows and codes at an epoch, and which operations each decoder has (M,).

    A decoder has an operation where it gives it at least half of the uniform probability; it knows one that it
    reconstructs exactly from its mean. `had` holds what the decoders had at earlier epochs; lost and found count from
    the one before, gone and new from the start of phase 4. Fractions of the M operations; information in nats.
    """
    epoch = int(state["epoch"])
    model = load(untrained(config)[0], state["theta"])
    last = dict(zip(HISTORY, state["history"][epoch - 1].tolist(), strict=True))
    trits = all_operations().float()
    row, has, means, codes = {"epoch": epoch}, {}, {}, []
    share = lambda mask: mask.double().mean().item()  # noqa: E731
    for pathway, vae in (("A", model.A), ("B", model.B)):
        generator = stream(config.seed, epoch, f"phases {pathway}")
        marginal, _ = evaluation.generate(vae.decoder, config.latent, SAMPLES, 1, generator)
        posterior = vae.encoder(trits)
        means[pathway] = posterior.mean
        codes.append(tempered(posterior, last[f"tau_{pathway}"]))
        has[pathway] = marginal.p >= 0.5 / SIZE
        row |= {
            f"kl_uniform_{pathway}": marginal.kl_uniform(),
            f"kl_error_{pathway}": marginal.kl_error,
            f"coverage_50000_{pathway}": expected_coverage(marginal.p, 50_000),
            f"coverage_195000_{pathway}": expected_coverage(marginal.p, 195_000),
            f"min_log_p_{pathway}": marginal.log_p().min().item(),
            f"rarest_log_p_{pathway}": marginal.log_p().quantile(0.01).item(),  # of the rarest 1 %, the greatest
            f"has_{pathway}": share(has[pathway]),
            f"knows_{pathway}": share((vae.decoder(means[pathway]).argmax(-1) - 1 == trits).all(-1)),
            f"information_{pathway}": evaluation.information(codes[-1], 1024, generator)[0],
        }
        for gained, gone, since in (("found", "lost", max(had, default=None)), ("new", "gone", PHASE_4)):
            before = had[since][pathway] if since in had else has[pathway]
            row[f"{gained}_{pathway}"] = share(has[pathway] & ~before)
            row[f"{gone}_{pathway}"] = share(before & ~has[pathway])
    both = Posterior(*(torch.cat(parts, 1) for parts in zip(*codes, strict=True)))
    joint, _ = evaluation.information(both, 1024, stream(config.seed, epoch, "phases joint"))
    row |= {
        "joint": joint,
        "cka": evaluation.cka(means["A"], means["B"]),
        "has_both": share(has["A"] & has["B"]),
        "reads_A": share((model.A.decoder(means["B"]).argmax(-1) - 1 == trits).all(-1)),
        "reads_B": share((model.B.decoder(means["A"]).argmax(-1) - 1 == trits).all(-1)),
    }
    names = ("rho", "tau_A", "tau_B", "beta_A", "beta_B", "gate", "ce_A", "ce_B", "kl_A", "kl_B")
    return row | {name: last[name] for name in names}, has
