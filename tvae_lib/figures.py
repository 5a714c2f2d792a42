"""The book's visual language: one colour for each pathway, one for the bound, one for the untrained network.

Figures stand on a light card, so that one palette serves light and dark pages. The colours are Okabe and Ito's,
told apart by people with any of the common colour-vision deficiencies.
"""

import itertools

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from tvae_lib.operations import ENTROPY
from tvae_lib.schedules import CLOCK, PHASE_STARTS, RATIO_BAND
from tvae_lib.statenet import CORRECTIONS

COLOURS = {"A": "#0072b2", "B": "#d55e00", "uniform": "#222222", "untrained": "#7a7a7a", "other": "#009e73"}
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
