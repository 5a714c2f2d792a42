"""One VAE of either kind under constant and rising beta, three temperatures, and other sizes: chapters 2, 3 and 6."""

import torch
from torch import Tensor, nn

from studies.single import train_single
from studies.study import Case, Study, slug, train_cases
from studies.tables import FOLDER, WEIGHTS
from tvae_lib.measures.pair import Effort, Pathway, measured_alone
from tvae_lib.rng import stream
from tvae_lib.runs.files import write_tensors
from tvae_lib.system.vae import VAE, DecoderB, ResidualBlock
from tvae_lib.training.config import Config, make_config
from tvae_lib.training.state import State, trained

SETTINGS = (  # beta at the start and at the end, temperature
    *((beta, beta, 1.0) for beta in (0.1, 0.3, 0.5, 0.8, 0.9, 1.0)),
    *((0.3, beta, 1.0) for beta in (0.8, 0.95, 0.98)),
    *((0.3, 0.98, tau) for tau in (0.5, 1.5)),
)
MODEL = {"beta_start": 0.3, "beta_end": 0.98, "tau": 1.0, "seed": 0}  # the one whose weights are kept
WIDE = 168  # width of decoder B with which one VAE has as many parameters as the pair, to 1 %
SINGLES = (  # kind of the decoder, beta at the start and at the end, decay of the learning rate
    ("unskipped", 0.3, 0.98, "cosine"),
    ("wide", 0.3, 0.98, "cosine"),
    ("wide", 0.6, 1.0, "none"),  # the document's beta_A
    ("wide", 0.4243, 0.7071, "none"),  # and beta_B, to four digits
)
COLUMNS = (
    *("distortion", "distortion_error", "charged", "rate", "information", "information_error", "kl_uniform"),
    *("kl_uniform_error", "min_log_p", "coverage_50000", "exact", "active"),
)
EFFORT = Effort(2**20, information=8192)


class Unskipped(ResidualBlock):
    """A residual block without its skip connection; as many parameters."""

    def forward(self, h: Tensor) -> Tensor:
        out = self.second(torch.relu(self.first(h)))
        return torch.relu(out) if self.relu else out


class UnskippedDecoder(DecoderB):
    """Decoder B with its residual connections taken out."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(*(Unskipped(128, m.relu) if isinstance(m, ResidualBlock) else m for m in self.body))


KINDS = {"wide": lambda: DecoderB(width=WIDE), "unskipped": UnskippedDecoder}


def uncoupled(**parameters) -> Config:
    """Two VAEs side by side, on D + beta R and nothing else: the preset `bare` with these."""
    return make_config(preset="bare", device="cpu", **parameters)


def rate(settings=SETTINGS, seeds=range(3), effort: Effort = EFFORT, folder=FOLDER, **parameters) -> Study:
    """Both VAEs of an uncoupled pair, a row each: rate.csv. The weights of `MODEL` are kept beside it."""
    keys = ("beta_start", "beta_end", "tau", "seed")

    def measure(case: Case, config: Config, state: State) -> list[dict]:
        model, rows = trained(state, config), []
        for p, vae in (("A", model.A), ("B", model.B)):
            one = Pathway(vae, case["tau"], stream(case["seed"], 400, f"measure {p}"), effort)
            rows.append({"pathway": p, **measured_alone(one, COLUMNS)})
        if case == MODEL:
            write_tensors(folder / WEIGHTS, model.state_dict())
        return rows

    def make(cases: list[Case], device: str):
        stops = (uncoupled(**parameters).total_epochs,)
        return train_cases(cases, device, lambda case: uncoupled(**case, **parameters), stops, measure)

    cases = [dict(zip(keys, (*setting, seed), strict=True)) for setting in settings for seed in seeds]
    parts = {slug(case): [case] for case in cases}
    return Study("rate", (*keys, "pathway"), parts, make, lambda case: [{"pathway": p} for p in "AB"])


def singles(settings=SINGLES, seeds=range(3), effort: Effort = EFFORT, **parameters) -> Study:
    """One VAE of the pair's size, and VAE-B without skip connections: singles.csv."""
    keys = ("kind", "beta_start", "beta_end", "lr_decay", "seed")

    def make(cases: list[Case], device: str):
        for case in cases:
            config = uncoupled(tau=1.0, **{name: case[name] for name in keys[1:]}, **parameters)
            with torch.random.fork_rng(devices=[]):
                torch.set_rng_state(stream(case["seed"], 0, "initial").get_state())
                vae = VAE(KINDS[case["kind"]]())
            one = Pathway(train_single(vae, config), 1.0, stream(case["seed"], 400, "measure single"), effort)
            yield [case | measured_alone(one, COLUMNS)]

    cases = [dict(zip(keys, (*setting, seed), strict=True)) for setting in settings for seed in seeds]
    return Study("singles", keys, {slug(case): [case] for case in cases}, make)
