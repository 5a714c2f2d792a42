"""The book's visual language: one colour for each pathway, one for the bound, one for the untrained network.

Style, palette, and what several chapters draw. Figures stand on a light card, so that one palette serves light and dark
pages. The colours are Okabe and Ito's, told apart with any of the common colour-vision deficiencies."""

import itertools
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from tvae_lib.system.schedules import CLOCK, PHASE_STARTS

MARKERS = {"A": "o", "B": "s"}
COLOURS = {"A": "#0072b2", "B": "#d55e00", "uniform": "#222222", "untrained": "#7a7a7a", "other": "#009e73"}
NEITHER = ("#009e73", "#cc79a7", "#7a7a7a")  # for what is not a matter of A and B
DASHES = {"uniform": (0, (5, 2)), "untrained": (0, (1, 1.5))}
TRIT_COLOURS = {-1: "#762a83", 0: "#f2f0ea", 1: "#1b7837"}  # values, told apart by lightness and by their sign too


def use_style() -> None:
    """Set Matplotlib to the book's style; call once, before the first figure of a notebook."""
    sns.set_theme(context="notebook", style="ticks", rc={"font.family": "DejaVu Sans"})
    plt.style.use(Path(__file__).with_name("book.mplstyle"))


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


def epoch_panels(
    rows: int, columns: int, total_epochs: int, phased: bool, height: float = 2.5
) -> tuple[Figure, list[Axes]]:
    """Axes that share the epoch, with the phases shaded where there are any."""
    fig, grid = plt.subplots(rows, columns, figsize=(3.9 * columns, height * rows), sharex=True, squeeze=False)
    for ax in grid.flat:
        if phased:
            shade_phases(ax, total_epochs)
        ax.margins(y=0.12)
    for ax in grid[-1]:
        ax.set_xlabel("epoch")
    return fig, list(grid.flat)


def legend_above(ax: Axes, columns: int) -> None:
    """The legend above the axes, to the right of the title, where it covers nothing."""
    ax.legend(
        ncols=columns, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.2, handlelength=1.3,
        columnspacing=0.9, handletextpad=0.4, fontsize=8,
    )  # fmt: skip


def draw_table(ax: Axes, table) -> None:
    """An operation (3, 3) as its truth table: a row for each first argument, each value in its colour and written."""
    ax.imshow(table, cmap=ListedColormap([TRIT_COLOURS[trit] for trit in (-1, 0, 1)]), vmin=-1, vmax=1)
    for i, row in enumerate(table.tolist()):
        for j, trit in enumerate(row):
            ink = "#222222" if trit == 0 else "white"
            ax.text(j, i, "0" if trit == 0 else f"{trit:+d}", ha="center", va="center", fontsize=8, color=ink)
    ax.set(xticks=[], yticks=[])


def plot_pair(ax: Axes, table: pd.DataFrame, column: str, title: str, unit: str = "", **style) -> None:
    """The columns `column_A` and `column_B` of a table against its epoch, in the pathways' colours."""
    for pathway in ("A", "B"):
        ax.plot(table["epoch"], table[f"{column}_{pathway}"], color=COLOURS[pathway], label=pathway, **style)
    ax.set_title(title)
    ax.set_ylabel(unit)


def over_seeds(
    table: pd.DataFrame, titles: dict[str, str], columns: int = 2, levels: dict[str, float] | None = None
) -> Figure:
    """Columns `<name>_A` and `<name>_B` against the epoch: mean over the seeds, and each seed as a thin line.

    `levels` gives a dashed line to the quantities it names."""
    rows = -(-len(titles) // columns)
    fig, axes = epoch_panels(rows, columns, int(table["epoch"].max()), True, height=2.7)
    for ax, (name, title) in zip(axes, titles.items(), strict=True):
        for pathway in ("A", "B"):
            column = f"{name}_{pathway}"
            for _, run in table.groupby("seed"):
                ax.plot(run["epoch"], run[column], color=COLOURS[pathway], lw=0.6, alpha=0.5)
            mean = table.groupby("epoch")[column].mean()
            ax.plot(mean.index, mean, color=COLOURS[pathway], lw=2, label=pathway)
        if levels and name in levels:
            ax.axhline(levels[name], color=COLOURS["uniform"], ls=DASHES["uniform"], lw=1.2)
        ax.set_title(title)
    legend_above(axes[0], 2)
    return fig


def by_kind(table: pd.DataFrame, titles: dict[str, str], styles: dict[str, tuple], columns: int = 3) -> Figure:
    """Each quantity by epoch for every kind of run, mean and seeds; `styles` is {kind: (colour, dashes)}."""
    fig, axes = epoch_panels(-(-len(titles) // columns), columns, int(table["epoch"].max()), True, height=2.7)
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
