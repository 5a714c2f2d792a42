"""Text and figure of the performance page, from the measurements in benchmarks/results; used by generate.py."""

import io
import json
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

from tvae_lib.figures import COLOURS, use_style

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"
FIGURE = "performance.svg"

# Ratio -> what it compares, and the target that was set before anything was measured.
RATIOS = {
    "speedup_vs_plain": ("plain loop, batch 64, coverage of both decoders every epoch, over ours", "at least 15"),
    "speedup_equal_work": ("plain loop at batch 512, coverage every ten epochs, over ours", "at least 4"),
    "speedup_vs_pyro": ("VAE-B alone by Pyro's SVI, over the same by the library", "at least 1.5"),
    "full_run_over_floor": ("400 epochs with all evaluations, over their matrix products alone", "at most 4"),
    "replicas16_over_floor": ("16 replicas, over their matrix products alone", "at most 3"),
    "replicas64_over_floor": ("64 replicas, over their matrix products alone", "none"),
    "replicas64_over_one": ("64 replicas, over one run", "at most 6"),
}
SECONDS = {
    "epoch": "an epoch of ours: 39 steps of 512",
    "evaluation": "an evaluation of ours: both decoders at 262,144 samples, coverage, reconstruction, gradient shares",
    "replicas_epoch": "an epoch of {replicas} replicas of ours",
    "plain_epoch_64": "an epoch of the plain loop at batch 64",
    "plain_epoch_512": "an epoch of the plain loop at batch 512",
    "plain_coverage": "coverage of both decoders at 195,000 draws, plain",
    "pyro_epoch": "an epoch of VAE-B alone by Pyro, batch 512",
    "single_epoch": "an epoch of VAE-B alone by the library, batch 512",
    "judgement": "coverage and p̂ of both decoders",
    "full_run": "a full run of ours, put together from these",
    "full_run_judged_every_epoch": "400 epochs with coverage and p̂ every epoch, put together from these (target: at most 10 s)",
}
PIECES = {
    "repulsion": (
        "Repulsion and its gradient",
        "The plain loop holds all differences $z_i - z_j$, an N × N × d tensor. Squared distances need only the Gram matrix, and the gradient "
        "needs the kernel times the codes: two matrix products ({ref}`repulsion <fn-losses-repulsion>`).",
    ),
    "entropy": (
        "Soft entropy and its gradient",
        "Autograd would send N × d × 50 kernel weights through memory once for each operation, forwards and backwards, and some of the weights are so small as to be "
        "denormal numbers, which are slow. Exponents are held above −40, and the gradient is given in closed form: one more product with the "
        "weights that are already there ({ref}`soft_entropy <fn-dual-soft-entropy>`).",
    ),
    "optimiser": (
        "AdamW",
        "All parameters are one vector with named views, so that the update is a few operations on 167,702 numbers instead of a few on each of dozens of tensors "
        "({ref}`adamw_update <fn-training-adamw-update>`).",
    ),
    "norms": (
        "Gradient norms of A and B",
        "In that vector the pathways are two slices: two norms, read by no one on the host, instead of dozens of numbers fetched one by one.",
    ),
    "softmax": (
        "Log-softmax and its gradient",
        "Along rows of three numbers a vector unit has nothing to do. With the batch as the last axis the same kernel works on whole vectors "
        "({ref}`log_likelihood <fn-vae-log-likelihood>`).",
    ),
    "step": (
        "The whole step, recorded",
        "Python, module calls and autograd wrap each of hundreds of tensor operations. They are recorded once and played back: the same operations in the same "
        'order, and the same bits ({ref}`record <fn-replay-record>`). "As written" here is the library\'s own step, unrecorded.',
    ),
    "coverage": (
        "Coverage of 195,000 draws",
        "The position at which each operation is first drawn is one scatter with a minimum; it answers for every number of draws at once, and no tuple is "
        "made ({ref}`coverage <fn-evaluation-coverage>`).",
    ),
    "argmax": (
        "Argmax of 4,096 × 9 × 3",
        "An argmax over three values is two comparisons ({ref}`likeliest <fn-evaluation-likeliest>`).",
    ),
}
GROWTH = {
    "batch": ("a training step", "batch size"),
    "latent": ("a training step", "latent coordinates d"),
    "replicas": ("an epoch on a tenth of the data", "replicas"),
    "operations": ("p̂ from 4,096 samples", "operations 3ⁿ, n = 5 … 11"),
}


def measured() -> dict[str, dict]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}


def duration(seconds: float) -> str:
    """In a fitting unit, with a space that does not break."""
    if seconds >= 1:
        return f"{seconds:,.1f}\u00a0s" if seconds < 100 else f"{seconds:,.0f}\u00a0s"
    return f"{seconds * 1e3:.3g}\u00a0ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g}\u00a0µs"


def met(value: float, target: str) -> str:
    if target == "none":
        return "—"
    bound = float(target.split()[-1])
    return "met" if (value >= bound if "least" in target else value <= bound) else "missed"


def section(kind: str, result: dict) -> list[str]:
    lines = [f"## On {'a GPU' if kind == 'cuda' else 'a CPU'}\n"]
    lines.append(
        f"Measured on: {result['device']}; torch {result['torch']}, Python {result['python']}; medians of {result['rounds']} rounds.\n"
    )
    lines.append("| ratio | what | value | target | |\n|---|---|---:|---|---|")
    for name, value in result["ratios"].items():
        what, target = RATIOS[name]
        lines.append(f"| `{name}` | {what} | {value:.2f} | {target} | {met(value, target)} |")
    lines.append("\n| seconds of | |\n|---|---:|")
    for name, seconds in result["median_seconds"].items():
        lines.append(f"| {SECONDS[name].format(replicas=result['replicas'])} | {duration(seconds)} |")
    missed = [name for name, value in result["ratios"].items() if met(value, RATIOS[name][1]) == "missed"]
    if missed:
        plain = result["median_seconds"]["plain_epoch_64"] + result["median_seconds"]["plain_coverage"]
        lines.append(
            f"\nMissed: {', '.join(f'`{name}`' for name in missed)}. (The target for `speedup_vs_plain` comes from a plain loop that takes 4 s an epoch with its coverage; the "
            f"one here takes {duration(plain)}. At 4 s the ratio would be {4 / plain * result['ratios']['speedup_vs_plain']:.1f}.) What stands between the step and its floor is the "
            "subject of the next section.\n"
        )
    flop = result["floor_gflop"]
    lines.append(
        f"\nThe floor: the matrix products of a full run are {flop['training'] / 1e3:.2f} TFLOP of training, {flop['evaluation'] / 1e3:.2f} of evaluations and "
        f"{flop['final'] / 1e3:.2f} of the final one, at {result['gflop_per_second']:,.0f} GFLOP/s, the rate of a product of two 2048 × 2048 matrices in the same "
        f"process: {sum(flop.values()) / result['gflop_per_second']:.0f} s. Recording the step takes {duration(result['seconds_to_record'])}, once a run; recording and "
        f"compiling that of the replicas took {duration(result['seconds_to_record_and_compile_the_ensemble'])} (less on a machine "
        "that has done it before). Both are part of the ratios for whole runs, spread over the 400 epochs. The ratio of a full run includes its evaluations, that of the replicas is of "
        "training alone.\n"
    )
    return lines


def page() -> str:
    results = measured()
    cpu = results["cpu"]
    batch = dict(zip(cpu["growth"]["batch"]["sizes"], cpu["growth"]["batch"]["seconds"], strict=True))
    step_floor = cpu["floor_gflop"]["training"] / 400 / 39 / cpu["gflop_per_second"]
    one = cpu["compiling_one_run"]
    lines = ["# Performance\n"]
    lines.append(
        "How long 400 epochs take, what they are compared with, and which changes made the difference. `make bench` measures everything on this page in one process and "
        "writes `benchmarks/results/cpu.json`; the page is generated from that file. The candidates of a comparison take turns.\n\n"
        "Four yardsticks. The *plain loop* (`benchmarks/plain.py`) is the system as such things are usually written: a DataLoader, `torch.optim`, losses straight from their "
        "formulas, `.item()` in each step, coverage through a Python set of tuples. A test holds it to the library's losses within two per cent. In its published setting it takes smaller "
        "steps and evaluates ten times as often as we do; at equal work it takes ours, and still leaves out what our evaluation adds: p̂ of every operation, argmax coverage, reconstruction and "
        "gradient shares. *Pyro* {cite}`bingham2019` trains VAE-B alone by its stochastic variational inference, with its checks off, against the library's pieces on the same model. The *floor* is what the "
        "matrix products alone would take. And *replicas* are whole runs trained side by side ({ref}`ensemble <module-ensemble>`).\n"
    )
    for kind in ("cpu", "cuda"):
        if kind in results:
            lines += section(kind, results[kind])
    if "cuda" not in results:
        lines.append("On a GPU nothing has been measured yet; `make gpu` does it.\n")
    lines.append("## What the profile said\n")
    lines.append(
        f"The matrix products of a step at batch 512 would take {duration(step_floor)}; the library's step takes {duration(cpu['pieces']['step']['before'])} as written and "
        f"{duration(cpu['pieces']['step']['after'])} recorded. A recorded step on 8 operations instead of 512, which has a sixty-fourth of the arithmetic, still takes "
        f"{duration(batch[8])}: most of that is the price of launching operations one after the other (the optimiser's share does not shrink with the batch). The rest goes to products that are too small for the peak rate, and "
        "to passes of elementwise operations over tensors that have left the cache. So there were three things to do: fewer operations, fewer passes, and nothing in between that waits.\n"
    )
    lines.append("## What each change gave\n")
    lines.append(
        "Each piece as it is usually written and as it is here. Times are for one call; gradients are included where the piece has one.\n"
    )
    lines.append("| piece | as written | here | ratio |\n|---|---:|---:|---:|")
    for name, (title, _) in PIECES.items():
        before, after = cpu["pieces"][name]["before"], cpu["pieces"][name]["after"]
        lines.append(f"| {title} | {duration(before)} | {duration(after)} | {before / after:.1f} |")
    lines.append("")
    lines += [f"**{title}.** {text}\n" for title, text in PIECES.values()]
    lines.append(
        "**Replicas.** An {ref}`Ensemble <fn-ensemble-ensemble>` maps the step over a first axis with `torch.func.vmap`; what differs between replicas is in their state, their noise and one "
        "small vector of controls. On a CPU the recorded step goes through TorchInductor, which fuses elementwise passes; that takes a C++ compiler and time. For one run, compiling "
        f"took {duration(one['seconds'])} and brought the step from {duration(one['recorded'])} to {duration(one['compiled'])}, which over 400 epochs saves "
        f"{duration((one['recorded'] - one['compiled']) * 39 * 400)}. A single run does without all the same: it must not need a compiler, nor come out otherwise where there is one. Replicas go through two at a time.\n\n"
        "**On a GPU** the recorded step is one CUDA graph: one launch a step, with state, batch, noise and controls copied to fixed places before it and the results copied out after it.\n"
    )
    lines.append("## How it grows\n")
    lines.append("| time of | against | sizes | exponent | of the three largest |\n|---|---|---|---:|---:|")
    for name, (what, against) in GROWTH.items():
        series = cpu["growth"][name]
        sizes = f"{series['sizes'][0]:,} … {series['sizes'][-1]:,}"
        lines.append(
            f"| {what} | {against} | {sizes} | {series['exponent']:.2f} | {series['exponent_of_the_largest']:.2f} |"
        )
    lines.append(
        f"\n```{{figure}} {FIGURE}\n:name: fig-growth\n:alt: Four log-log plots of time against size on a CPU: a training step against batch size and against latent width, an epoch against "
        "replicas, p-hat against the number of operations. Each curve is flat or rises slowly at small sizes; against batch size and operations it comes close to the dashed line of slope one at the largest.\n\n"
        "Time against size on a CPU; dashed, slope one through the last point. Small sizes pay for launching operations, large ones for arithmetic and memory. The replicas here are "
        "one ensemble, neither recorded nor compiled.\n```\n"
    )
    return "\n".join(lines)


def figure() -> str:
    """The growth figure as SVG text, the same for the same measurements."""
    use_style()
    growth = measured()["cpu"]["growth"]
    fig, axes = plt.subplots(2, 2, figsize=(7.6, 5.6))
    for ax, (name, (what, against)) in zip(axes.flat, GROWTH.items(), strict=True):
        sizes, seconds = growth[name]["sizes"], growth[name]["seconds"]
        ax.loglog(sizes, [s * 1e3 for s in seconds], "o-", ms=4, color=COLOURS["other"])
        ax.loglog(sizes, [seconds[-1] * 1e3 * s / sizes[-1] for s in sizes], "--", lw=1, color=COLOURS["uniform"])
        low, high = min(seconds) * 1e3 / 2, max(seconds) * 1e3 * 2
        ticks = [m * 10**e for e in range(-2, 5) for m in (1, 2, 5) if low <= m * 10**e <= high]
        ax.set(ylim=(low, high))
        ax.set_yticks(ticks[:: 1 + len(ticks) // 7], [f"{t:g}" for t in ticks[:: 1 + len(ticks) // 7]])
        ax.set(title=what, xlabel=against, ylabel="ms")
        ax.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=35 if len(sizes) > 4 else 0)
        ax.minorticks_off()
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "performance", "svg.fonttype": "path"}):
        fig.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(fig)
    return buffer.getvalue()
