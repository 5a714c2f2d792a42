"""The book's visual language: one colour for each pathway, one for the bound, one for the untrained network.

Figures stand on a light card, so that one palette serves light and dark pages. The colours are Okabe and Ito's,
told apart by people with any of the common colour-vision deficiencies.
"""

import itertools
import math

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from tvae_lib.dual import DualVAE
from tvae_lib.operations import ENTROPY
from tvae_lib.schedules import CLOCK, PHASE_STARTS, RATIO_BAND
from tvae_lib.statenet import CORRECTIONS
from tvae_lib.vae import ResidualBlock

MARKERS = {"A": "o", "B": "s"}
COLOURS = {"A": "#0072b2", "B": "#d55e00", "uniform": "#222222", "untrained": "#7a7a7a", "other": "#009e73"}
NEITHER = ("#009e73", "#cc79a7", "#7a7a7a")  # for what is not a matter of A and B
DASHES = {"uniform": (0, (5, 2)), "untrained": (0, (1, 1.5))}
TRIT_COLOURS = {-1: "#762a83", 0: "#f2f0ea", 1: "#1b7837"}  # values, told apart by lightness and by their sign too


def use_style() -> None:
    """Set Matplotlib to the book's style; call once, before the first figure of a notebook."""
    sns.set_theme(context="notebook", style="ticks", rc={"font.family": "DejaVu Sans"})
    mpl.rcParams |= {
        "figure.facecolor": "#fcfcfa",
        "axes.facecolor": "#fcfcfa",
        "savefig.facecolor": "#fcfcfa",
        "figure.dpi": 120,
        "figure.constrained_layout.use": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#e4e4e0",
        "lines.linewidth": 1.6,
        "legend.frameon": False,
        "font.size": 11,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.labelsize": 10,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "legend.fontsize": 9,
    }


def shade_phases(ax: Axes, total_epochs: int) -> None:
    """Shade the second and fourth phase, and number the phases along the top of the axes."""
    edges = [start * total_epochs / CLOCK for start in PHASE_STARTS] + [total_epochs]
    for number, (left, right) in enumerate(itertools.pairwise(edges), start=1):
        if number % 2 == 0:
            ax.axvspan(left, right, color="#777766", alpha=0.10, lw=0, zorder=0)
        ax.annotate(
            str(number), ((left + right) / 2, 1), xycoords=("data", "axes fraction"), xytext=(0, -3),
            textcoords="offset points", ha="center", va="top", fontsize=7.5, color="#666655",
        )  # fmt: skip
    ax.set_xlim(0, total_epochs)


def _panels(rows: int, columns: int, total_epochs: int, phased: bool, height: float = 2.5) -> tuple[Figure, list[Axes]]:
    fig, grid = plt.subplots(rows, columns, figsize=(3.9 * columns, height * rows), sharex=True, squeeze=False)
    for ax in grid.flat:
        if phased:
            shade_phases(ax, total_epochs)
        ax.margins(y=0.12)
    for ax in grid[-1]:
        ax.set_xlabel("epoch")
    return fig, list(grid.flat)


def _legend(ax: Axes, columns: int) -> None:
    """The legend above the axes, to the right of the title, where it covers nothing."""
    ax.legend(
        ncols=columns, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.2, handlelength=1.3,
        columnspacing=0.9, handletextpad=0.4, fontsize=8,
    )  # fmt: skip


def _pair(ax: Axes, table: pd.DataFrame, column: str, title: str, unit: str = "", **style) -> None:
    """The columns `column_A` and `column_B` of a table against its epoch, in the pathways' colours."""
    for pathway in ("A", "B"):
        ax.plot(table["epoch"], table[f"{column}_{pathway}"], color=COLOURS[pathway], label=pathway, **style)
    ax.set_title(title)
    ax.set_ylabel(unit)


def losses(history: pd.DataFrame, total_epochs: int, phased: bool = True) -> Figure:
    """Losses, distortions, rates and latent entropies of both pathways, epoch by epoch."""
    fig, axes = _panels(2, 2, total_epochs, phased)
    _pair(axes[0], history, "loss", r"Loss  $\mathcal{L}_A$, $\mathcal{L}_B$", "nats")
    _pair(axes[1], history, "ce", "Distortion  CE", "nats")
    axes[1].axhline(ENTROPY, color=COLOURS["uniform"], ls=DASHES["uniform"], lw=1.2, label="H = 9 ln 3")
    _pair(axes[2], history, "kl", "Rate  KL", "nats")
    _pair(axes[3], history, "entropy", "Entropy of the codes  H(z)", "nats")
    for ax in axes:
        _legend(ax, 3)
    return fig


def coverage(evaluations: pd.DataFrame, bound: dict[str, float], total_epochs: int, phased: bool = True) -> Figure:
    """Coverage by sampled draws at every N, beside the uniform bound and the untrained network."""
    fig, axes = _panels(len(bound), 1, total_epochs, phased, height=2.3)
    fig.set_figwidth(7.8)
    for ax, (draws, limit) in zip(axes, bound.items(), strict=True):
        _pair(ax, evaluations, f"coverage_{draws}", f"{int(draws):,} draws", "coverage", marker=".")
        ax.axhline(limit, color=COLOURS["uniform"], ls=DASHES["uniform"], lw=1.2, label="uniform bound")
        start = evaluations.iloc[0][[f"coverage_{draws}_A", f"coverage_{draws}_B"]].mean()
        ax.axhline(start, color=COLOURS["untrained"], ls=DASHES["untrained"], label="untrained, mean of A and B")
        ax.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1, decimals=0))
    _legend(axes[0], 4)
    return fig


def divergence(evaluations: pd.DataFrame, total_epochs: int, phased: bool = True) -> Figure:
    """KL(U||p) and exact reconstruction by each decoder alone, evaluation by evaluation."""
    fig, axes = _panels(1, 2, total_epochs, phased, height=2.9)
    _pair(axes[0], evaluations, "kl_uniform", "KL(U‖p) of each decoder alone", "nats", marker=".")
    axes[0].set_yscale("log")
    _pair(axes[1], evaluations, "alone", "Reconstructed exactly at the mean", "operations", marker=".")
    axes[1].plot(evaluations["epoch"], evaluations["coupled_A"], color=COLOURS["A"], ls=":", label="A, injected")
    axes[1].plot(evaluations["epoch"], evaluations["coupled_B"], color=COLOURS["B"], ls=":", label="B, injected")
    axes[1].yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1, decimals=0))
    fig.legend(*axes[1].get_legend_handles_labels(), ncols=4, loc="outside lower center")
    return fig


def controls(history: pd.DataFrame, total_epochs: int, phased: bool = True) -> Figure:
    """What the schedule and StateNet prescribed: rho, tau, beta, lambda, learning rate, corrections."""
    fig, axes = _panels(3, 2, total_epochs, phased, height=2.2)
    axes[0].plot(history["epoch"], history["rho"], color=COLOURS["other"])
    axes[0].set_title("Permeability ρ")
    _pair(axes[1], history, "tau", "Temperature τ")
    _pair(axes[2], history, "beta", "KL weight β")
    _legend(axes[2], 2)
    for name, colour in zip(("lambda_1", "lambda_2", "lambda_3"), (*_ab(), COLOURS["other"]), strict=True):
        axes[3].plot(history["epoch"], history[name], color=colour, label=name.replace("lambda_", "λ"))
    axes[3].set_title("Loss weights λ")
    _legend(axes[3], 3)
    axes[4].plot(history["epoch"], 1000 * history["lr"], color=COLOURS["uniform"])
    axes[4].set_title("Learning rate × 1000")
    for name, colour in zip(CORRECTIONS, (COLOURS["uniform"], *_ab(), COLOURS["other"]), strict=True):
        axes[5].plot(history["epoch"], history[name], color=colour, label=name.replace("delta_", "Δ"))
    axes[5].set_title("Corrections")
    _legend(axes[5], 4)
    return fig


def balance(history: pd.DataFrame, total_epochs: int, phased: bool = True) -> Figure:
    """The gradient ratio with the band that opens the gate, and the balance factors."""
    fig, axes = _panels(1, 2, total_epochs, phased, height=2.9)
    axes[0].axhspan(*RATIO_BAND, color=COLOURS["other"], alpha=0.18, lw=0, label="gate open")
    axes[0].plot(history["epoch"], history["grad_ratio"], color=COLOURS["uniform"], lw=1)
    axes[0].set_title("Gradient ratio, B over A")
    axes[0].set_yscale("log")
    axes[0].yaxis.set_major_locator(mpl.ticker.FixedLocator([0.5, 0.7, 1, 1.5, 2, 3]))
    axes[0].yaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
    axes[0].yaxis.set_minor_locator(mpl.ticker.NullLocator())
    _legend(axes[0], 1)
    _pair(axes[1], history, "g", "Balance factors g")
    _legend(axes[1], 2)
    return fig


def _ab() -> tuple[str, str]:
    return COLOURS["A"], COLOURS["B"]


def glyphs(operations: dict[str, Tensor], columns: int = 4) -> Figure:
    """Truth tables as 3 x 3 glyphs with their names: first argument downwards, second to the right, -1 first."""
    rows = -(-len(operations) // columns)
    fig, grid = plt.subplots(rows, columns, figsize=(2.0 * columns, 2.25 * rows), squeeze=False)
    for ax in grid.flat:
        ax.set_axis_off()
    for ax, (name, operation) in zip(grid.flat, operations.items(), strict=False):
        for place, value in enumerate(operation.tolist()):
            row, column = divmod(place, 3)
            ax.add_patch(
                plt.Rectangle((column, 2 - row), 1, 1, facecolor=TRIT_COLOURS[value], edgecolor="#fcfcfa", lw=2)
            )
            sign = {-1: "−", 0: "0", 1: "+"}[value]
            ax.text(
                column + 0.5, 2.5 - row, sign, ha="center", va="center", fontsize=13,
                color="#222222" if value == 0 else "#ffffff",
            )  # fmt: skip
        ax.set(xlim=(0, 3), ylim=(0, 3), aspect="equal")
        ax.set_title(name, fontsize=9.5, loc="center")
    return fig


def coverage_bound(draws: list[int], expected: list[float], full: list[float], marked: dict[int, float]) -> Figure:
    """Expected coverage of a uniform generator and its probability to cover everything, against the draws."""
    fig, ax = plt.subplots(figsize=(7.6, 3.6))
    ax.plot(
        draws,
        expected,
        color=COLOURS["uniform"],
        ls=DASHES["uniform"],
        label="expected coverage of the uniform generator",
    )
    ax.plot(draws, full, color=COLOURS["other"], label="probability that every operation is covered")
    ax.plot(list(marked), list(marked.values()), "o", color=COLOURS["uniform"], ms=6)
    for n, value in marked.items():
        ax.annotate(
            f"{n:,}\n{value:.2%}",
            (n, value),
            xytext=(-8, 4),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=9,
        )
    ax.set(xscale="log", xlabel="independent draws N", ylim=(-0.03, 1.22), xlim=(draws[0], draws[-1]))
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1])
    ax.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1, decimals=0))
    ax.legend(loc="upper left")
    return fig


def elbo_gaps(gaps: dict[str, Tensor], errors: dict[str, Tensor]) -> Figure:
    """How far the ELBO of each operation is below log p, sorted, with a band of two standard errors."""
    fig, axes = plt.subplots(1, len(gaps), figsize=(7.8, 3.0), sharey=True, squeeze=False)
    for ax, (pathway, gap) in zip(axes.flat, gaps.items(), strict=True):
        order = gap.argsort()
        low, high = gap - 2 * errors[pathway], gap + 2 * errors[pathway]
        place = range(len(gap))
        ax.fill_between(place, low[order], high[order], color=COLOURS[pathway], alpha=0.25, lw=0)
        ax.plot(place, gap[order], color=COLOURS[pathway], label=pathway)
        ax.axhline(0, color=COLOURS["uniform"], lw=1)
        ax.set(title=f"Pathway {pathway}", xlabel="operations, sorted")
        ax.xaxis.set_major_locator(mpl.ticker.MaxNLocator(4))
        ax.xaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:,.0f}"))
    axes[0, 0].set_ylabel("log p̂(x) − ELBO(x), nats")
    return fig


def estimator_errors(samples: list[int], errors: dict[str, list[float]]) -> Figure:
    """Root mean square error of gradient estimators against the number of samples."""
    fig, ax = plt.subplots(figsize=(7.4, 3.4))
    styles = zip(NEITHER, ("o", "v", "^"), strict=True)
    for (name, values), (colour, marker) in zip(errors.items(), styles, strict=True):
        ax.plot(samples, values, color=colour, marker=marker, label=name)
    ax.set(xscale="log", yscale="log", xlabel="samples", ylabel="error, relative to the gradient")
    ax.axhline(1, color=COLOURS["uniform"], lw=1, ls=DASHES["uniform"])
    _legend(ax, 3)
    return fig


def honest_rates(history: pd.DataFrame, honest: pd.DataFrame, total_epochs: int) -> Figure:
    """D + R as charged, epoch by epoch, and as used at the snapshots, with the floor H."""
    fig, ax = plt.subplots(figsize=(7.6, 3.6))
    shade_phases(ax, total_epochs)
    for pathway in ("A", "B"):
        charged = history[f"ce_{pathway}"] + history[f"kl_{pathway}"]
        ax.plot(history["epoch"], charged, color=COLOURS[pathway], lw=1.2, label=f"{pathway}, charged")
        used = honest[honest["pathway"] == pathway]
        style = {"marker": MARKERS[pathway], "ls": "none", "ms": 7, "mec": "#ffffff", "clip_on": False}
        shift = {"A": -2, "B": 2}[pathway]  # side by side
        ax.plot(used["epoch"] + shift, used["D + R"], color=COLOURS[pathway], label=f"{pathway}, honest", **style)
    ax.axhline(ENTROPY, color=COLOURS["uniform"], ls=DASHES["uniform"], lw=1.2, label="H = 9 ln 3")
    ax.set(xlabel="epoch", ylabel="D + R, nats")
    ax.margins(y=0.12)
    ax.legend(ncols=5, loc="lower left", bbox_to_anchor=(0, 1), columnspacing=1.0, handletextpad=0.4)
    return fig


def product_codes(codes: dict[float, tuple[Tensor, Tensor]], law: pd.DataFrame) -> Figure:
    """The best code of one trit at a few beta, and its rate as beta goes to 1 beside the power law."""
    fig, axes = plt.subplots(1, len(codes) + 1, figsize=(8.2, 2.9), width_ratios=[1] * len(codes) + [1.35])
    for ax, (beta, (z, density)) in zip(axes, codes.items(), strict=False):
        for (value, colour), curve in zip(TRIT_COLOURS.items(), density, strict=True):
            colour = "#8a8371" if value == 0 else colour  # the pale one is no line colour
            ax.plot(z, curve / 3, color=colour, label={-1: "−1", 0: "0", 1: "+1"}[value])
        ax.plot(z, density.mean(0), color="#222222", lw=1)
        ax.plot(z, (-0.5 * z**2).exp() / (2 * math.pi) ** 0.5, color="#222222", ls=DASHES["uniform"], lw=1)
        ax.set(title=f"β = {beta}", xlabel="z", ylim=(0, None), yticks=[])
    axes[0].legend(loc="upper left", fontsize=8, handlelength=1)
    ax = axes[-1]
    ax.plot(law["1 - beta"], law["rate"], "o-", color=COLOURS["other"], ms=4, label="by quadrature")
    ax.plot(law["1 - beta"], law["law"], color=COLOURS["uniform"], ls=DASHES["uniform"], label="power law, 1/5")
    ax.set(xscale="log", yscale="log", xlabel="1 − β", title="Rate, nats")
    ax.yaxis.set_major_locator(mpl.ticker.FixedLocator([0.5, 1, 2, 5]))
    ax.yaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
    ax.yaxis.set_minor_locator(mpl.ticker.NullLocator())
    ax.legend(loc="lower right", fontsize=8)
    return fig


def linear_decoders(z: Tensor, probabilities: dict[float, Tensor]) -> Figure:
    """p(trit | z) of the decoder by hand at a few slopes; dotted lines where its argmax changes."""
    fig, axes = plt.subplots(1, len(probabilities), figsize=(7.8, 2.6), sharey=True)
    for ax, (slope, p) in zip(axes, probabilities.items(), strict=True):
        for (value, colour), curve in zip(TRIT_COLOURS.items(), p.T, strict=True):
            colour = "#8a8371" if value == 0 else colour
            ax.plot(z, curve, color=colour, label={-1: "−1", 0: "0", 1: "+1"}[value])
        ax.set(title=f"a = {slope:g}", xlabel="z")
    axes[0].set_ylabel("p(trit | z)")
    axes[-1].legend(loc="center right", fontsize=8, handlelength=1)
    return fig


def frontier(curves: dict[str, tuple[list[float], list[float]]], models: pd.DataFrame) -> Figure:
    """D + R - H against the rate: curves by quadrature, and trained models, beta constant (open) or rising (filled)."""
    fig, ax = plt.subplots(figsize=(7.8, 4.6))
    styles = ((COLOURS["uniform"], "-"), (COLOURS["other"], (0, (4, 1.5, 1, 1.5))))
    for (name, (rate, gap)), (colour, dashes) in zip(curves.items(), styles, strict=True):
        ax.plot(rate, gap, color=colour, ls=dashes, label=name)
    for (pathway, rising), group in models.groupby(["pathway", "rising"]):
        face = COLOURS[pathway] if rising else "none"
        name = f"{pathway}, β {'rising' if rising else 'constant'}"
        ax.errorbar(
            group["rate"], group["gap"], yerr=2 * group["gap_error"], fmt=MARKERS[pathway], ms=6.5, mfc=face,
            mec=COLOURS[pathway], ecolor=COLOURS[pathway], elinewidth=1, label=name, alpha=0.9,
        )  # fmt: skip
    for (_, beta), group in models.groupby(["rising", "beta_end"]):
        if group["rate"].mean() > 1:
            place = group["rate"].mean(), group["gap"].max()
            ax.annotate(f"{beta:g}", place, xytext=(0, 7), textcoords="offset points", ha="center", fontsize=8)
    ax.set_yscale("symlog", linthresh=0.01, linscale=0.6)
    ax.set(xlabel="rate R, nats", ylabel="D + R − H, nats", ylim=(-0.003, None), xlim=(-0.3, None))
    ax.yaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
    ax.legend(loc="upper left")
    return fig


def transition(models: pd.DataFrame, optimum: pd.DataFrame) -> Figure:
    """Final rate against the final beta, constant and rising, beside that of the best product code."""
    fig, axes = plt.subplots(1, 2, figsize=(7.8, 3.3), sharey=True)
    for ax, rising in zip(axes, (False, True), strict=True):
        ax.plot(optimum["beta"], optimum["rate"], color=COLOURS["uniform"], label="best product code")
        for pathway, shift in (("A", -0.006), ("B", 0.006)):
            chosen = models[(models["pathway"] == pathway) & (models["rising"] == rising)]
            ax.plot(
                chosen["beta_end"] + shift, chosen["rate"], MARKERS[pathway], ms=6, color=COLOURS[pathway],
                mfc=COLOURS[pathway] if rising else "none", label=pathway,
            )  # fmt: skip
        ax.set(title=f"β {'rising from 0.3' if rising else 'constant'}", xlabel="β at the end")
    axes[0].set_ylabel("rate R, nats")
    axes[0].legend(loc="lower left")
    return fig


def architecture(model: DualVAE) -> Figure:
    """Both pathways as their modules have them: a bar for each layer's width, arcs for residual connections."""
    fig, axes = plt.subplots(2, 1, figsize=(7.8, 4.6))
    for ax, (pathway, vae) in zip(axes, (("A", model.A), ("B", model.B)), strict=True):
        place, previous = 0.0, None
        linear = [m for m in vae.encoder.body if isinstance(m, nn.Linear)]
        layers = [(linear[0].in_features, "x", False)] + [(m.out_features, "", False) for m in linear]
        layers += [(vae.encoder.mean.out_features, "μ, σ", False), (vae.encoder.mean.out_features, "z", False)]
        for m in vae.decoder.body:
            if isinstance(m, ResidualBlock):
                layers += [(m.first.out_features, "", False), (m.second.out_features, "", True)]
            elif isinstance(m, nn.Linear):
                layers.append((m.out_features, "", False))
        layers[-1] = (layers[-1][0], "logits", False)
        tops = []
        for width, name, residual in layers:
            height = math.sqrt(width)
            colour = "#ffffff" if name else COLOURS[pathway]
            ax.add_patch(
                plt.Rectangle((place, -height / 2), 0.42, height, facecolor=colour, edgecolor=COLOURS[pathway], lw=1.4)
            )
            if previous is not None:
                ax.plot([place - 0.58, place], [0, 0], color="#555555", lw=1, zorder=0)
            ax.annotate(str(width), (place + 0.21, -height / 2 - 0.8), ha="center", va="top", fontsize=8.5)
            ax.annotate(name, (place + 0.21, height / 2 + 0.6), ha="center", va="bottom", fontsize=9)
            tops.append((place + 0.21, height / 2))
            if residual:
                (x0, y0), (x1, _) = tops[-3], tops[-1]
                style = {"arrowstyle": "-|>", "connectionstyle": "arc3,rad=-0.5", "color": "#555555", "lw": 1.1}
                ax.annotate("", (x1, y0), (x0, y0), arrowprops=style)
            place, previous = place + 1.0, width
        count = sum(p.numel() for p in vae.parameters())
        encoder = sum(p.numel() for p in vae.encoder.parameters())
        ax.set_title(f"Pathway {pathway}: {count:,} parameters, {encoder:,} of them in the encoder")
        ax.set(xlim=(-0.3, 11.7), ylim=(-11.5, 12.5))
        ax.set_axis_off()
    return fig


def trade_off(models: pd.DataFrame) -> Figure:
    """What a constant beta costs: distortion, misfit of prior and codes, and what the decoder generates."""
    fig, axes = plt.subplots(1, 3, figsize=(8.4, 3.0))
    titles = {"distortion": "Distortion D", "misfit": "Misfit R − I(x; z)", "kl_uniform": "KL(U‖p)"}
    for ax, (column, title) in zip(axes, titles.items(), strict=True):
        for pathway in ("A", "B"):
            chosen = models[models["pathway"] == pathway]
            mean = chosen.groupby("beta_end")[column].mean()
            ax.plot(mean.index, mean, color=COLOURS[pathway], lw=1.2)
            ax.plot(chosen["beta_end"], chosen[column], MARKERS[pathway], ms=5, color=COLOURS[pathway], mfc="none")
        ax.plot([], [], marker="o", color=COLOURS["A"], mfc="none", label="A")
        ax.plot([], [], marker="s", color=COLOURS["B"], mfc="none", label="B")
        ax.set(title=title, xlabel="β, constant")
    axes[0].set_ylabel("nats")
    axes[0].legend(loc="lower right")
    return fig


def entropy_path(scale: list[float], values: dict[str, list[float]], slopes: dict[str, list[float]]) -> Figure:
    """Entropy of codes that are spread by a factor, and its derivative, by histogram and by soft histogram."""
    fig, axes = plt.subplots(1, 2, figsize=(7.8, 3.1))
    styles = {"histogram": (NEITHER[1], "-"), "soft": (NEITHER[0], "-"), "Gaussian": (COLOURS["uniform"], ":")}
    for ax, curves in zip(axes, (values, slopes), strict=True):
        for name, curve in curves.items():
            colour, dashes = styles[name]
            ax.plot(scale, curve, color=colour, ls=dashes, label=name)
        ax.set_xlabel("factor on the codes")
    axes[0].set(title="Entropy of a coordinate", ylabel="nats")
    axes[1].set(title="Its derivative by the factor", ylabel="nats")
    axes[0].legend(loc="lower right")
    return fig


def over_seeds(table: pd.DataFrame, titles: dict[str, str], columns: int = 2, levels: dict | None = None) -> Figure:
    """Columns `<name>_A` and `<name>_B` against the epoch: mean over the seeds, and each seed as a thin line.

    `levels` gives a dashed line to the quantities it names.
    """
    rows = -(-len(titles) // columns)
    fig, axes = _panels(rows, columns, int(table["epoch"].max()), True, height=2.7)
    for ax, (name, title) in zip(axes, titles.items(), strict=True):
        for pathway in ("A", "B"):
            column = f"{name}_{pathway}"
            for _, run in table.groupby("seed"):
                ax.plot(run["epoch"], run[column], color=COLOURS[pathway], lw=0.6, alpha=0.5)
            mean = table.groupby("epoch")[column].mean()
            ax.plot(mean.index, mean, color=COLOURS[pathway], lw=2, label=pathway)
        if name in (levels or {}):
            ax.axhline(levels[name], color=COLOURS["uniform"], ls=DASHES["uniform"], lw=1.2)
        ax.set_title(title)
    _legend(axes[0], 2)
    return fig


def by_kind(table: pd.DataFrame, titles: dict[str, str], styles: dict[str, tuple], columns: int = 3) -> Figure:
    """Each quantity by epoch for every kind of run, mean and seeds; `styles` is {kind: (colour, dashes)}."""
    fig, axes = _panels(-(-len(titles) // columns), columns, int(table["epoch"].max()), True, height=2.7)
    fig.set_figwidth(8.4)
    for ax, (name, title) in zip(axes, titles.items(), strict=True):
        for kind, (colour, dashes) in styles.items():
            chosen = table[table["kind"] == kind]
            for _, run in chosen.groupby("seed"):
                ax.plot(run["epoch"], run[name], color=colour, lw=0.6, alpha=0.5)
            mean = chosen.groupby("epoch")[name].mean()
            ax.plot(mean.index, mean, color=colour, ls=dashes, lw=2, marker=".", label=kind)
        ax.set_title(title)
        ax.xaxis.set_major_locator(mpl.ticker.MultipleLocator(100))
    fig.legend(*axes[0].get_legend_handles_labels(), ncols=min(3, len(styles)), loc="outside lower center")
    return fig


def stability_map(rho: Tensor, boundaries: dict[str, Tensor], path: pd.DataFrame) -> Figure:
    """Where collapse is unstable, in the plane of rho and beta tau^2, and the growth rate along a run's schedule."""
    fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.3))
    styles = (("-", 2), ((0, (5, 2)), 1.4), ((0, (1, 1.5)), 1.4))
    for (name, curve), (dashes, width) in zip(boundaries.items(), styles, strict=True):
        axes[0].plot(rho, curve, color=COLOURS["uniform"], ls=dashes, lw=width, label=name)
    axes[0].fill_between(rho, 0, next(iter(boundaries.values())), color=COLOURS["other"], alpha=0.15, lw=0)
    for pathway in ("A", "B"):
        axes[0].plot(
            path["rho"], path[f"scaled_{pathway}"], color=COLOURS[pathway], lw=1.2, label=f"schedule of {pathway}"
        )
    axes[0].set(xlabel="permeability ρ", title="βτ², equal pathways", xlim=(0, 1), ylim=(0, 2.1))
    axes[0].legend(fontsize=7.5, loc="upper right")
    shade_phases(axes[1], int(path["epoch"].max()))
    axes[1].plot(path["epoch"], path["growth"], color=COLOURS["other"], label="with the partner’s signal")
    axes[1].plot(path["epoch"], path["alone"], color=COLOURS["untrained"], ls=DASHES["untrained"], label="without it")
    axes[1].axhline(0, color=COLOURS["uniform"], lw=1)
    axes[1].set(xlabel="epoch", title="Growth rate of a weak signal", yscale="symlog", ylim=(-1, 30))
    axes[1].set_yticks([-1, 0, 1, 10])
    axes[1].yaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
    axes[1].legend(fontsize=7.5, loc="upper left", bbox_to_anchor=(0, 0.93))
    return fig


def stability_outcomes(table: pd.DataFrame, floor: float) -> Figure:
    """Information after training against the predicted growth rate, a point for each pathway of each training."""
    fig, ax = plt.subplots(figsize=(7.6, 3.4))
    for pathway, crosses in (("A", "+"), ("B", "x")):
        for equal, marker in ((True, MARKERS[pathway]), (False, crosses)):
            chosen = table[(table["beta_ratio"] == 1) == equal]
            values = chosen[f"information_{pathway}"].clip(lower=floor)
            label = f"{pathway}, {'equal' if equal else 'unequal'} β"
            style = {"color": COLOURS[pathway], "mfc": "none", "ms": 6, "clip_on": False, "label": label}
            ax.plot(chosen["growth"], values, marker, **style)
    ax.axvline(0, color=COLOURS["uniform"], lw=1)
    ax.set(yscale="log", xlabel="predicted growth rate", ylabel="I(x; z̃), nats", ylim=(floor, 12))
    _legend(ax, 4)
    return fig


def commons(rho: list[float], curves: dict[str, tuple[list[float], list[float]]], trained: pd.DataFrame) -> Figure:
    """What decoders are given and what each code says, by permeability: equilibria as lines, trainings as points."""
    fig, axes = plt.subplots(1, 2, figsize=(8.0, 3.2), sharey=True)
    styles = ((COLOURS["uniform"], "-", "none"), (COLOURS["other"], DASHES["uniform"], COLOURS["other"]))
    panels = (("information", "Injected code  I(x; z̃)"), ("own", "Own code  I(x; z)"))
    for ax, place, (column, title) in zip(axes, (0, 1), panels, strict=True):
        for (name, curve), (colour, dashes, face) in zip(curves.items(), styles, strict=True):
            ax.plot(rho, curve[place], color=colour, ls=dashes, label=name)
            runs = trained[trained["coupling"] == name]
            for pathway in ("A", "B"):
                style = {"color": colour, "mfc": face, "ms": 5, "label": f"{pathway}, trained"}
                ax.plot(runs["rho"], runs[f"{column}_{pathway}"], MARKERS[pathway], **style)
        ax.axhline(ENTROPY, color=COLOURS["uniform"], lw=0.8)
        ax.set(title=title, xlabel="permeability ρ", ylim=(0, 10.3))
    axes[0].set_ylabel("nats")
    fig.legend(*axes[0].get_legend_handles_labels(), ncols=6, loc="outside lower center", fontsize=8, columnspacing=0.9)
    return fig


def predicted_rates(games: dict[str, pd.DataFrame], measured: dict[str, pd.DataFrame], total_epochs: int) -> Figure:
    """Rates of A and B in trainings, points, beside what the game predicts for their schedule, lines: a row each."""
    fig, axes = _panels(len(games), 2, total_epochs, True, height=2.3)
    fig.set_figwidth(8.6)
    cells = itertools.product(games.items(), ("A", "B"))
    for ax, ((name, predicted), pathway) in zip(axes, cells, strict=True):
        runs = measured[name]
        style = {"color": COLOURS[pathway], "ms": 2.5, "mfc": "none", "mew": 0.7, "label": f"{pathway}, trained"}
        ax.plot(runs["epoch"], runs[f"kl_{pathway}"], MARKERS[pathway], **style)
        rate = predicted[f"rate_{pathway}"]
        ax.plot(predicted["epoch"], rate, color=COLOURS["uniform"], lw=1.2, label="equilibrium")
        ax.set_title(f"{name}: {pathway}")
        ax.set_ylim(0, 11)
        if pathway == "A":
            ax.set_ylabel("rate, nats")
        _legend(ax, 2)
    return fig


def strip(groups: dict[str, list[float]], colours: dict[str, str], label: str) -> Figure:
    """One row of points for each group, a point for a seed, on a logarithmic axis."""
    return strips({label: groups}, colours, {label})


def strips(panels: dict[str, dict[str, list[float]]], colours: dict[str, str], logarithmic: set[str]) -> Figure:
    """A panel for each measure, a row of points for each group, a point for a seed: {label: {group: values}}."""
    rows = list(next(iter(panels.values())))
    size = (7.8 if len(panels) == 1 else 8.6, 0.42 * len(rows) + 1.1)
    fig, axes = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False)
    for ax, (label, groups) in zip(axes.flat, panels.items(), strict=True):
        for row, (name, values) in enumerate(groups.items()):
            ax.plot(values, [row] * len(values), "o", ms=7, mfc="none", mew=1.6, color=colours[name], clip_on=False)
        ax.set(xlabel=label, ylim=(len(rows) - 0.5, -0.5), xscale="log" if label in logarithmic else "linear")
    axes[0, 0].set_yticks(range(len(rows)), rows)
    return fig


def state_vector(inputs: pd.DataFrame, total_epochs: int) -> Figure:
    """StateNet's nine inputs over a run, grouped by their unit, and its four corrections."""
    fig, axes = _panels(2, 3, total_epochs, True, height=2.2)
    fig.set_figwidth(8.6)
    _pair(axes[0], inputs, "entropy", "H(z), nats")
    _legend(axes[0], 2)
    _pair(axes[1], inputs, "kl", "Rate, nats")
    axes[2].plot(inputs["epoch"], inputs["grad_ratio"], color=COLOURS["uniform"], lw=1)
    axes[2].set_title("Gradient ratio r")
    axes[3].plot(inputs["epoch"], inputs["rho"], color=COLOURS["other"])
    axes[3].set_title("Permeability ρ")
    for name, colour in zip(("lambda_1", "lambda_2", "lambda_3"), (*_ab(), COLOURS["other"]), strict=True):
        axes[4].plot(inputs["epoch"], inputs[name], color=colour, label=name.replace("lambda_", "λ"))
    axes[4].set_title("Weights λ")
    axes[4].set_ylim(0, 1)
    axes[4].legend(fontsize=8, loc="lower left", ncols=3)
    for name, colour in zip(CORRECTIONS, (COLOURS["uniform"], *_ab(), COLOURS["other"]), strict=True):
        label = name.replace("delta_lr", "Δη").replace("delta_", "Δ")
        axes[5].plot(inputs["epoch"], inputs[name], color=colour, lw=1, label=label)
    axes[5].set_title("Corrections Δ")
    axes[5].legend(fontsize=8, loc="lower right", ncols=2)
    for ax in axes:
        ax.xaxis.set_major_locator(mpl.ticker.MultipleLocator(100))
        ax.tick_params(labelbottom=True)
    return fig


def jump(k: Tensor, formula: Tensor, measured: Tensor) -> Figure:
    """How much longer AdamW's updates are after its loss was doubled, step by step."""
    fig, ax = plt.subplots(figsize=(7.4, 3.2))
    ax.plot(k, measured, color=COLOURS["other"], lw=0.5, label="measured")
    ax.plot(k, formula, color=COLOURS["uniform"], lw=2, label="formula")
    ax.axhline(1, color=COLOURS["uniform"], lw=0.8)
    ax.set(xlabel="steps after the jump", ylabel="length of the update, relative", ylim=(0.5, 2.5))
    _legend(ax, 2)
    return fig


TERM_STYLES = {  # term: (name, colour, dashes)
    "ce": ("cross-entropy", None, "-"),
    "kl": ("rate", None, (0, (4, 1.5))),
    "alignment": ("alignment", "#222222", "-"),
    "negentropy": ("output entropy", "#cc79a7", "-"),
    "repulsion": ("repulsion", "#a08a00", "-"),
}


def gradient_shares(evaluations: pd.DataFrame, total_epochs: int) -> Figure:
    """The share of each term in the gradient of A and of B, evaluation by evaluation, and of the two small terms."""
    fig, axes = _panels(1, 3, total_epochs, True, height=3.2)
    fig.set_figwidth(8.8)
    for ax, pathway in zip(axes, ("A", "B"), strict=False):
        for term in ("ce", "kl", "alignment"):
            name, colour, dashes = TERM_STYLES[term]
            column = f"share_{term}_{pathway}" if term == "alignment" else f"share_{term}_{pathway}_{pathway}"
            ax.plot(evaluations["epoch"], evaluations[column], color=colour or COLOURS[pathway], ls=dashes, label=name)
        ax.set_title(f"Shares in the gradient of {pathway}")
        ax.axhline(0, color="#999999", lw=0.8)
        ax.set_ylim(-1, 1.6)
        ax.legend(fontsize=7.5, loc="lower left", handlelength=1.6, labelspacing=0.3)
    for term in ("negentropy", "repulsion"):
        name, colour, _ = TERM_STYLES[term]
        axes[2].plot(evaluations["epoch"], evaluations[f"share_{term}_B"].abs(), color=colour, label=name)
    axes[2].set(yscale="log", title="Size of the small ones, B", ylim=(1e-12, 3))
    axes[2].legend(fontsize=8, loc="lower right")
    for ax in axes:
        ax.xaxis.set_major_locator(mpl.ticker.MultipleLocator(100))
    return fig


def rate_parts(table: pd.DataFrame) -> Figure:
    """The rate of each pathway at some epochs, as a bar of its three parts."""
    fig, axes = plt.subplots(1, 2, figsize=(8.0, 3.2), sharey=True)
    shades = {"I(x; z)": 1.0, "total correlation": 0.55, "dimension-wise": 0.22}
    for ax, pathway in zip(axes, ("A", "B"), strict=True):
        chosen = table[table["pathway"] == pathway]
        bottom = 0 * chosen["I(x; z)"].to_numpy()
        places = range(len(chosen))
        for part, alpha in shades.items():
            ax.bar(places, chosen[part], 0.6, bottom=bottom, color=COLOURS[pathway], alpha=alpha, label=part)
            bottom = bottom + chosen[part].to_numpy()
        ax.set_xticks(places, [str(epoch) for epoch in chosen["epoch"]])
        ax.set(title=f"Pathway {pathway}", xlabel="epoch")
        ax.grid(axis="x", visible=False)
        ax.legend(fontsize=8)
    axes[0].set_ylabel("nats")
    return fig


def minibatch_bias(table: pd.DataFrame, truth: dict[str, float]) -> Figure:
    """Estimates of information and total correlation from batches of several sizes, beside what they estimate."""
    fig, axes = plt.subplots(1, len(truth), figsize=(8.0, 3.2))
    styles = {"batch mean": (NEITHER[0], "o"), "stratified": (NEITHER[1], "v")}
    for ax, (part, value) in zip(axes, truth.items(), strict=True):
        ax.axhline(value, color=COLOURS["uniform"], lw=1.2, label="sum over all operations")
        for estimator, group in table.groupby("estimator"):
            colour, marker = styles[estimator]
            ax.errorbar(
                group["n"], group[part], yerr=2 * group[f"{part}, error"], color=colour, marker=marker, label=estimator
            )
        ax.set(xscale="log", title=part, xlabel="operations in the batch")
        ax.xaxis.set_major_locator(mpl.ticker.FixedLocator(sorted(table["n"].unique())))
        ax.xaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%d"))
        ax.xaxis.set_minor_locator(mpl.ticker.NullLocator())
    axes[0].set_ylabel("nats")
    fig.legend(*axes[0].get_legend_handles_labels(), ncols=3, loc="outside lower center")
    return fig


def repulsion_width(
    sigma: Tensor, curves: dict[str, Tensor], measured: pd.DataFrame, marked: dict[str, float]
) -> Figure:
    """What the width of the repulsion kernel does: its mean and its push in theory, and its share in a gradient."""
    fig, axes = plt.subplots(1, 2, figsize=(8.2, 3.2))
    for (name, curve), colour in zip(curves.items(), NEITHER, strict=False):
        axes[0].plot(sigma, curve, color=colour, label=name)
    axes[0].set(title="Codes from the prior", ylim=(1e-9, 9))
    axes[1].plot(
        measured["sigma"], measured["share"], "s-", color=COLOURS["B"], ms=4, label="share in the gradient of B"
    )
    axes[1].set(title="A trained pair")
    for ax in axes:
        for (name, place), dashes in zip(marked.items(), (DASHES["untrained"], DASHES["uniform"]), strict=True):
            ax.axvline(place, color=COLOURS["uniform"], ls=dashes, lw=1.2, label=name)
        ax.set(xscale="log", yscale="log", xlabel="σ of the kernel")
        ax.legend(fontsize=8, loc="lower right")
    return fig


def balance_map(r: Tensor, rules: dict[str, Tensor], measured: dict[str, pd.DataFrame]) -> Figure:
    """The ratio of scaled gradient norms against that of the raw ones: rules at rest, and loops of real runs."""
    fig, axes = plt.subplots(1, 2, figsize=(8.6, 3.9), width_ratios=(1, 1))
    styles = ("-", (0, (5, 2)), (0, (4, 1.5, 1, 1.5)), (0, (1, 1.5)))
    colours = (COLOURS["uniform"], NEITHER[1], NEITHER[0], COLOURS["untrained"])
    for (name, curve), dashes, colour in zip(rules.items(), styles, colours, strict=True):
        axes[0].plot(r, curve, color=colour, ls=dashes, label=name)
    axes[0].set(title="Where rules come to rest", xlim=(r.min(), r.max()), ylim=(0.08, 12))
    axes[1].plot(r, next(iter(rules.values())), color=COLOURS["uniform"], label="as written, at rest")
    for (name, points), colour in zip(measured.items(), (NEITHER[0], NEITHER[1]), strict=True):
        axes[1].plot(points["raw"], points["scaled"], ".", ms=5, color=colour, alpha=0.7, label=name)
    low, high = (
        min(points["raw"].min() for points in measured.values()),
        max(p["raw"].max() for p in measured.values()),
    )
    axes[1].set(title="Loops of real runs", xlim=(0.8 * low, 1.25 * high))
    for ax in axes:
        ax.axhspan(*RATIO_BAND, color=COLOURS["other"], alpha=0.13, lw=0)
        ax.set(xscale="log", yscale="log", xlabel="ratio of raw norms r₀, B over A")
        ax.legend(fontsize=8, loc="upper left")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(mpl.ticker.FixedLocator([0.1, 0.2, 0.5, 1, 2, 5, 10]))
            axis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
            axis.set_minor_locator(mpl.ticker.NullLocator())
    axes[0].set_ylabel("ratio of scaled norms r")
    return fig


def schedules(formulas: pd.DataFrame, realised: pd.DataFrame) -> Figure:
    """The formulas of rho, tau and beta over the clock, lines, and what a run realised, points; a panel each."""
    fig, axes = _panels(2, 2, len(formulas), True, height=2.6)
    fig.set_figwidth(8.6)
    epochs = range(len(formulas))
    axes[0].plot(realised["epoch"] - 1, realised["rho"], ".", ms=5, color=COLOURS["other"], label="realised")
    axes[0].plot(epochs, formulas["rho"], color=COLOURS["uniform"], lw=0.9, label="gate open")
    axes[0].plot(epochs, formulas["rho_shut"], color=COLOURS["untrained"], ls=DASHES["untrained"], label="gate shut")
    axes[0].set_title("Permeability ρ")
    axes[0].legend(fontsize=8, loc="lower right")
    titles = {"tau_A": "Temperature τ of A", "tau_B": "Temperature τ of B"}
    for ax, (column, title) in zip(axes[1:], titles.items(), strict=False):
        ax.plot(epochs, formulas[column], color=COLOURS["uniform"], lw=1.2, label="formula")
        ax.plot(realised["epoch"] - 1, realised[column], ".", ms=3, color=COLOURS[column[-1]], label="realised")
        ax.axhline(0, color="#999999", lw=0.8)
        ax.set_title(title)
        ax.legend(fontsize=8, loc="lower left")
    for pathway in ("A", "B"):
        axes[3].plot(epochs, formulas[f"beta_{pathway}"], color=COLOURS["uniform"], lw=1.2)
        chosen = realised[::10]
        axes[3].plot(
            chosen["epoch"] - 1, chosen[f"beta_{pathway}"], MARKERS[pathway], ms=3, color=COLOURS[pathway],
            label=f"{pathway}, realised",
        )  # fmt: skip
    axes[3].set_title("KL weight β")
    axes[3].legend(fontsize=8, loc="lower right")
    return fig


def lagging(lags: Tensor, guaranteed: Tensor, marked: dict[str, float], weights: pd.DataFrame) -> Figure:
    """What a lag of two cycling weights guarantees, and the two weights over the clock with half a cycle's lag."""
    fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.1), width_ratios=(1, 1.5))
    axes[0].plot(lags, guaranteed, color=COLOURS["other"])
    for (name, lag), marker in zip(marked.items(), ("v", "D"), strict=True):
        place = guaranteed[(lags - lag).abs().argmin()]
        axes[0].plot(lag, place, marker, color=COLOURS["uniform"], ms=6, label=name)
    axes[0].set(title="The greater factor, at worst", xlabel="lag, radians")
    axes[0].set_xticks([0, math.pi / 4, math.pi / 2, math.pi], ["0", "π/4", "π/2", "π"])
    axes[0].legend(fontsize=8, loc="upper left")
    shade_phases(axes[1], len(weights))
    for pathway in ("A", "B"):
        axes[1].plot(weights[f"lagging_{pathway}"], color=COLOURS[pathway], lw=1.2, label=f"{pathway}, with cycle")
        axes[1].plot(weights[f"beta_{pathway}"], color=COLOURS[pathway], ls=":", label=f"{pathway}, document")
    axes[1].set(title="KL weight β", xlabel="epoch")
    axes[1].set_ylim(0.1, None)
    axes[1].legend(fontsize=7.5, loc="lower right", ncols=2)
    return fig


def turnover(
    epochs: list[int], found: dict[str, list[float]], lost: dict[str, list[float]], total_epochs: int
) -> Figure:
    """Operations found, up, and lost, down, since the evaluation before: a bar for each, per cent of all."""
    fig, axes = _panels(2, 1, total_epochs, True, height=2.2)
    fig.set_figwidth(7.8)
    width = 0.7 * min(b - a for a, b in itertools.pairwise(epochs))
    for ax, pathway in zip(axes, ("A", "B"), strict=True):
        ax.bar(epochs, found[pathway], width, color=COLOURS[pathway], label="found")
        ax.bar(epochs, [-value for value in lost[pathway]], width, color=COLOURS[pathway], alpha=0.45, label="lost")
        ax.axhline(0, color=COLOURS["uniform"], lw=0.8)
        ax.set_title(f"Decoder {pathway}")
        ax.set_ylabel("operations, %")
        _legend(ax, 2)
    return fig


def turns(measured: pd.DataFrame, predicted: pd.DataFrame) -> Figure:
    """Information in the own codes of A and B in phase 4, points, beside the equilibrium of the game, lines."""
    fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.0), sharey=True)
    for ax, pathway in zip(axes, ("A", "B"), strict=True):
        ax.plot(predicted.index, predicted[f"own_{pathway}"], color=COLOURS["uniform"], lw=1.2, label="equilibrium")
        style = {"color": COLOURS[pathway], "ms": 5, "label": f"{pathway}, trained"}
        ax.plot(measured.index, measured[f"information_{pathway}"], MARKERS[pathway], **style)
        ax.set(title=f"I(x; z) of {pathway}", xlabel="epoch", ylim=(-0.4, 11.6))
        _legend(ax, 2)
    axes[0].set_ylabel("nats")
    return fig


def coverage_curves(draws: list[int], curves: dict[str, list[float]], measured: dict[str, dict[int, float]]) -> Figure:
    """Share of operations that are missed, in expectation, against the draws: lines; and what was measured: points.

    Curves are named `uniform`, `untrained A`, `A` and so on; both axes are logarithmic.
    """
    fig, ax = plt.subplots(figsize=(7.8, 4.2))
    for name, covered in curves.items():
        kind, _, pathway = name.rpartition(" ")
        colour = COLOURS.get(pathway, COLOURS["other"])
        style = {"color": colour, "ls": DASHES.get(kind or name, "-"), "lw": 2.2 if name == "uniform" else 1.6}
        ax.plot(draws, [1 - share for share in covered], label=name, **style)
        shown = measured.get(name, {})
        marker = MARKERS.get(pathway, "D")
        ax.plot(list(shown), [1 - share for share in shown.values()], marker, color=colour, ms=5)
    ax.set(xscale="log", yscale="log", xlabel="independent draws N", ylabel="share of operations missed")
    ax.set(xlim=(draws[0], draws[-1]), ylim=(2e-6, 1.3))
    ax.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    ax.legend(loc="lower left", ncols=2)
    return fig


def trit_maps(accuracy: dict[str, dict[int, Tensor]]) -> Figure:
    """Shares of operations with each trit read right, a map for each pathway and epoch: (seeds, 9) each."""
    epochs = len(next(iter(accuracy.values())))
    fig, grid = plt.subplots(len(accuracy), epochs, figsize=(1.75 * epochs, 4.2), sharex=True, sharey=True)
    for axes, (pathway, maps) in zip(grid, accuracy.items(), strict=True):
        colours = mpl.colors.LinearSegmentedColormap.from_list(pathway, ["#fcfcfa", COLOURS[pathway]])
        for ax, (epoch, values) in zip(axes, maps.items(), strict=True):
            image = ax.pcolormesh(values, cmap=colours, vmin=1 / 3, vmax=1, edgecolor="#e4e4e0", lw=0.4)
            ax.grid(False)
            ax.set_title(f"{pathway}, epoch {epoch}", fontsize=9.5)
            ax.set_xticks([0.5, 4.5, 8.5], ["1", "5", "9"])
            ax.set_yticks([0.5, 9.5], ["0", "9"])
        axes[0].set_ylabel("seed")
        fig.colorbar(image, ax=axes, ticks=[1 / 3, 2 / 3, 1], format="%.2f", pad=0.01)
    for ax in grid[-1]:
        ax.set_xlabel("trit")
    return fig


def by_number(panels: dict[str, dict[str, dict[int, list[float]]]], label: str, levels: dict[str, float]) -> Figure:
    """Two panels a row, an even number: {title: {pathway: {number: values of the seeds}}}; means are joined.

    `levels` are dashed lines in the panels whose titles they name.
    """
    rows = -(-len(panels) // 2)
    fig, axes = plt.subplots(rows, 2, figsize=(7.8, 2.7 * rows), squeeze=False)
    for ax, (title, of_pathway) in zip(axes.flat, panels.items(), strict=True):
        for shift, (pathway, values) in zip((0.97, 1.03), of_pathway.items(), strict=False):
            for number, of_seeds in values.items():
                style = {"mfc": "none", "ms": 4, "mew": 0.9, "alpha": 0.7, "color": COLOURS[pathway]}
                ax.plot([number * shift] * len(of_seeds), of_seeds, MARKERS[pathway], **style)
            means = [sum(of_seeds) / len(of_seeds) for of_seeds in values.values()]
            ax.plot(list(values), means, color=COLOURS[pathway], lw=2, label=pathway)
        if title in levels:
            ax.axhline(levels[title], color=COLOURS["uniform"], ls=DASHES["uniform"], lw=1.2)
        ax.set_xscale("log", base=2)
        numbers = sorted({number for values in of_pathway.values() for number in values})
        ax.set_xticks(numbers, [str(number) for number in numbers])
        ax.set(title=title, xlabel=label)
    _legend(axes[0, 0], 2)
    return fig


def low_discrepancy(bound: dict[int, float], panels: dict[str, dict[str, pd.DataFrame]]) -> Figure:
    """Coverage above the bound for independent samples, in points: {decoder: {sampler: seeds x draws}}, two errors."""
    fig, axes = plt.subplots(1, len(panels), figsize=(2.9 * len(panels), 3.0), sharey=True, squeeze=False)
    styles = {"independent": (COLOURS["untrained"], "o"), "Sobol": (COLOURS["other"], "D")}
    for ax, (title, samplers) in zip(axes.flat, panels.items(), strict=True):
        ax.axhline(0, color=COLOURS["uniform"], ls=DASHES["uniform"], lw=1.2)
        for sampler, shares in samplers.items():
            colour, marker = styles[sampler]
            above = 100 * (shares.mean() - pd.Series(bound))
            errors = 200 * shares.std() / math.sqrt(len(shares))
            ax.errorbar(list(bound), above, errors, fmt=marker + "-", color=colour, ms=4, lw=1.2, label=sampler)
        ax.set(title=title, xscale="log", xlabel="samples N")
    axes[0, 0].set_ylabel("points above the bound")
    _legend(axes[0, 0], 1)
    return fig


def early_completeness(table: pd.DataFrame, uniform: float) -> Figure:
    """Columns `complete_A` and `complete_B` by epoch, seeds and their mean, beside a uniform generator."""
    fig, ax = plt.subplots(figsize=(7.6, 3.2))
    for pathway in ("A", "B"):
        column = f"complete_{pathway}"
        for _, run in table.groupby("seed"):
            ax.plot(run["epoch"], run[column], color=COLOURS[pathway], lw=0.6, alpha=0.5)
        mean = table.groupby("epoch")[column].mean()
        ax.plot(mean.index, mean, color=COLOURS[pathway], lw=2, marker=MARKERS[pathway], ms=3, label=pathway)
    ax.axhline(uniform, color=COLOURS["uniform"], ls=DASHES["uniform"], lw=1.2, label="uniform")
    ax.set(xlabel="epoch", ylabel="P(all operations)", ylim=(-0.02, None))
    _legend(ax, 3)
    return fig
