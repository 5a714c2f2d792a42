"""The repaired pair: without each mechanism, with one alone, started elsewhere, against one VAE. Chapters 10 and 11."""

from itertools import pairwise

from torch import nn

from studies.rates import WIDE
from studies.study import Case, Study
from studies.variants import COLUMNS, FIVE, judged, with_seeds
from tvae_lib.measures.pair import Effort
from tvae_lib.operations import TRITS, VALUES
from tvae_lib.system.dual import DualVAE
from tvae_lib.system.vae import LAST_RELU, LATENT, VAE, DecoderB
from tvae_lib.training.config import PRESETS

REPAIRED, BARE = {"preset": "repaired"}, {"preset": "bare"}


def of_repaired(*names: str) -> dict:
    """What the preset `repaired` has for these parameters."""
    return {name: PRESETS["repaired"][name] for name in names}


OFF = {"diversity": 0.0, "prior_samples": 0}  # no collisions
WHOLE = {"repaired": REPAIRED, "bare": BARE}
ONE_OUT = {  # of the repaired pair
    "A alone": {"pathways": "A"},
    "B alone": {"pathways": "B"},
    "no coupling": {"cross_injection": False},
    "no alignment": {"alignment": False},
    "no collisions": OFF,
    "no balance": {"gradient_balance": False},
    "StateNet off": {"statenet": "off"},
    "with phases": {"phases": True, "temperatures": "constant", "gate": "open"},
}
OTHER_FORMS = {  # fewer seeds, as those below
    "codes mixed": {"injection": "mixed"},
    "aligned by absolute value": {"distance": "absolute"},
    "collisions at rest": {"diversity_end": 1.0},
    "no averaging": {"averaging": 0.0},
}
COUPLED = of_repaired("cross_injection", "injection", "rho")
COLLIDING = of_repaired("diversity", "diversity_end", "prior_samples")
ONE_ALONE = {  # with the bare pair
    "coupling": COUPLED,
    "alignment": of_repaired("alignment", "histogram", "distance"),
    "collisions": COLLIDING,
    "balance": of_repaired("gradient_balance", "raw_norms", "balance_power"),
    "StateNet": of_repaired("statenet", "hypergradient", "statenet_lr", "statenet_penalty"),
    "collisions and coupling": COUPLED | COLLIDING,
}
CORNERS = {
    "λ low": {"lambda_1": 0.5, "lambda_2": 0.5, "lambda_3": 0.75},
    "λ high": {"lambda_1": 0.95, "lambda_2": 0.95, "lambda_3": 0.15},
}
STARTS = {f"lr {lr:g}": {"lr": lr} for lr in (0.0003, 0.0005, 0.001, 0.002, 0.003)} | CORNERS
STOPS = (5, 10, 15, 20, 30, 40, 60, 80, 100, 150, 200, 300, 400)
LATER = STOPS[-6:]
EFFORT, FINAL = Effort(2**19, codes=16, draws=195_000), Effort(2**21, codes=16, draws=195_000)
MORE = (*COLUMNS, "distortion", "rate", "kl_half")


def ablations(
    whole=WHOLE,
    out=ONE_OUT,
    forms=OTHER_FORMS,
    alone=ONE_ALONE,
    seeds=range(10),
    fewer=FIVE,
    stops=STOPS,
    effort=EFFORT,
    **given,
) -> Study:
    """The repaired pair without each mechanism and with other forms, the bare one with each alone: ablations.csv."""
    taken_out, others = ({name: REPAIRED | change for name, change in some.items()} for some in (out, forms))
    put_in = {f"{name} alone": BARE | change for name, change in alone.items()}
    changes = whole | taken_out | others | put_in
    cases = with_seeds(whole | taken_out, seeds) + with_seeds(others | put_in, fewer)
    return judged("ablations", cases, stops, effort, lambda case: changes[case["variant"]], columns=MORE, **given)


def starts(settings=STARTS, seeds=range(1), stops=STOPS[-1:], effort=FINAL, **given) -> Study:
    """The repaired pair from other learning rates and weights, with StateNet and without: starts.csv."""
    cases = [
        {"start": name, "statenet": mode, "seed": seed}
        for name in settings
        for mode in ("rate", "off")
        for seed in seeds
    ]

    def changes(case: Case) -> dict:
        return REPAIRED | settings[case["start"]] | {"statenet": case["statenet"]}

    return judged("starts", cases, stops, effort, changes, columns=MORE, **given)


class WideA(nn.Sequential):
    """Decoder A with 230 and 460 for its 32 and 64 units; codes (N, 16) -> logits (N, 9, 3)."""

    def __init__(self, latent: int = LATENT):
        widths = (latent, 230, 460, TRITS * VALUES)
        layers = [part for two in pairwise(widths) for part in (nn.Linear(*two), nn.ReLU())]
        super().__init__(*layers[:-1], nn.Unflatten(-1, (TRITS, VALUES)))


class OfThePairsSize(DualVAE):
    """Two that are trained one at a time, each with as many parameters as the pair has, to 1 %."""

    def __init__(self, latent: int = LATENT, last_relu: bool = LAST_RELU):
        super().__init__(latent, last_relu)
        self.A, self.B = VAE(WideA(latent), latent), VAE(DecoderB(latent, WIDE, last_relu), latent)


def one_for_two(seeds=range(6), stops=LATER, effort=EFFORT, **given) -> Study:
    """One VAE of the pair's size, of A's form or of B's, with what the repaired pair has for one: one_for_two.csv."""

    def changes(case: Case) -> dict:
        return REPAIRED | {"pathways": case["variant"]}

    cases = with_seeds(["A", "B"], seeds)
    return judged("one_for_two", cases, stops, effort, changes, columns=MORE, pair=OfThePairsSize, **given)
