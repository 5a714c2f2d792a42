"""The repaired pair: without each mechanism, with one alone, started elsewhere, against one VAE. Chapters 10 and 11."""

from studies.rates import WIDE
from studies.study import Case, Study
from studies.variants import COLUMNS, judged, with_seeds
from tvae_lib.measures.pair import Effort
from tvae_lib.system.dual import DualVAE
from tvae_lib.system.vae import LAST_RELU, LATENT, VAE, DecoderB
from tvae_lib.training.config import PRESETS

REPAIRED, BARE = {"preset": "repaired"}, {"preset": "bare"}


def of_repaired(*names: str) -> dict:
    """What the preset `repaired` has for these parameters."""
    return {name: PRESETS["repaired"][name] for name in names}


OFF = {"diversity": 0.0, "prior_samples": 0}  # no collisions
WHOLE = {"repaired": REPAIRED, "bare": BARE}  # ten seeds
ONE_OUT = {  # of the repaired pair, or another form of one: ten seeds
    "A alone": {"pathways": "A"},
    "B alone": {"pathways": "B"},
    "no coupling": {"cross_injection": False},
    "codes mixed": {"injection": "mixed"},
    "no alignment": {"alignment": False},
    "aligned by absolute value": {"distance": "absolute"},
    "no collisions": OFF,
    "collisions at rest": {"diversity_end": 1.0},
    "no balance": {"gradient_balance": False},
    "StateNet off": {"statenet": "off"},
    "no averaging": {"averaging": 0.0},
    "with phases": {"phases": True, "temperatures": "constant", "gate": "open"},
}
COUPLED = of_repaired("cross_injection", "injection", "rho")
COLLIDING = of_repaired("diversity", "diversity_end", "prior_samples")
ONE_ALONE = {  # with the bare pair: five seeds
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
    "λ₁ low, λ₂ high": {"lambda_1": 0.5, "lambda_2": 0.95},
    "λ₁ high, λ₂ low": {"lambda_1": 0.95, "lambda_2": 0.5},
}
STARTS = {f"lr {lr:g}": {"lr": lr} for lr in (0.0003, 0.0005, 0.001, 0.002, 0.003)} | CORNERS
STOPS = (5, 10, 15, 20, 30, 40, 60, 80, 100, 150, 200, 300, 400)
LATER = STOPS[-6:]
EFFORT, BRIEF = Effort(2**19, codes=16, draws=195_000), Effort(2**17, codes=4, draws=195_000)
MORE = (*COLUMNS, "distortion", "rate", "kl_half")


def ablations(
    whole=WHOLE, out=ONE_OUT, alone=ONE_ALONE, seeds=range(10), fewer=range(5), stops=STOPS, effort=EFFORT, **given
):
    """The repaired and the bare pair, the one without each mechanism, the other with each alone: ablations.csv."""
    taken_out = {name: REPAIRED | change for name, change in out.items()}
    put_in = {f"{name} alone": BARE | change for name, change in alone.items()}
    changes = whole | taken_out | put_in
    cases = with_seeds(whole | taken_out, seeds) + with_seeds(put_in, fewer)
    return judged("ablations", cases, stops, effort, lambda case: changes[case["variant"]], columns=MORE, **given)


def starts(settings=STARTS, seeds=range(3), stops=(100, 200, 400), effort=BRIEF, **given) -> Study:
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


class OfThePairsSize(DualVAE):
    """Pathway B alone, with as many parameters as the pair has, to 1 %; A is there and not trained."""

    def __init__(self, latent: int = LATENT, last_relu: bool = LAST_RELU):
        super().__init__(latent, last_relu)
        self.B = VAE(DecoderB(latent, WIDE, last_relu), latent)


def one_for_two(seeds=range(10), stops=LATER, effort=EFFORT, **given) -> Study:
    """One VAE of the pair's size with all that the repaired pair has for one: one_for_two.csv."""

    def changes(case: Case) -> dict:
        return REPAIRED | {"pathways": "B"}

    cases = with_seeds(["with collisions"], seeds)
    return judged("one_for_two", cases, stops, effort, changes, columns=MORE, pair=OfThePairsSize, **given)
