"""The live figures: the browser's arithmetic is the library's, their data are the results', and they move."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_browser import Visit, browser  # noqa: F401 - a fixture

from studies import tables
from tvae_lib import coverage, operations
from tvae_lib.runs.directory import Run
from tvae_lib.system import losses
from tvae_lib.theory import balance, coupling, product_codes
from tvae_lib.training.config import REFERENCE, ROOT

sys.path.insert(0, str(ROOT / "book"))
import live

STATIC = ROOT / "book" / "_static" / "live"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("live")
    live.write(folder)
    return folder


@pytest.fixture(scope="module")
def call(browser, data):  # noqa: F811
    """Evaluates an expression of `tvae` in a page that has its arithmetic and its data, and nothing else."""
    page = browser.new_page()
    page.add_script_tag(path=STATIC / "arithmetic.js")
    for name in live.DATA:
        page.add_script_tag(path=data / f"{name}.js")
    yield lambda expression, *given: page.evaluate(f"(given) => {{ const t = tvae; return {expression}; }}", given)
    page.close()


def close(found, expected, tolerance=1e-5):
    torch.testing.assert_close(
        torch.tensor(found, dtype=torch.float64),
        torch.as_tensor(expected, dtype=torch.float64),
        atol=tolerance,
        rtol=tolerance,
    )


def test_operations_indices_names_and_orbits(call):
    chosen = [0, 1, 9841, 12345, 19682]
    every = operations.operation_at(torch.tensor(chosen))
    assert call("given[0].map(t.operationAt)", chosen) == every.tolist()
    assert call("given[0].map((i) => t.indexOf(t.operationAt(i)))", chosen) == chosen
    assert call("t.named") == {name: trits.tolist() for name, trits in operations.named_operations().items()}
    images = operations.symmetries()
    for index in chosen:
        assert call("t.orbit(t.operationAt(given[0]))", index) == images[:, index].unique().tolist()


def test_properties_are_those_of_the_definitions(call):
    for name, trits in operations.named_operations().items():
        f = {(a, b): int(trits[3 * a + b + 4]) for a in (-1, 0, 1) for b in (-1, 0, 1)}
        found = call("t.properties(t.named[given[0]])", name)
        assert found["commutative"] == all(f[a, b] == f[b, a] for a, b in f)
        assert found["associative"] == all(f[f[a, b], c] == f[a, f[b, c]] for a, b in f for c in (-1, 0, 1))
        assert found["idempotent"] == all(f[a, a] == a for a in (-1, 0, 1))
        assert found["monotone"] == all(f[a, b] <= f[c, d] for a, b in f for c, d in f if a <= c and b <= d)
        assert found["onto"] == (len(set(f.values())) == 3)


@pytest.mark.parametrize("name", list(live.WEIGHTS))
def test_decoder_and_encoder_give_the_librarys_numbers(call, name):
    run = Run(REFERENCE if name != "repaired" else ROOT / "results" / "repaired")
    pair = run.model(0 if name == "untrained" else None).double()
    z = torch.randn(3, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    shapes = [[32, 16], [64, 32], [27, 64]]
    p = call(
        "given[0].map((z) => t.decode(t.layersOf(t.weights[given[1]].decoder, given[2]), z))", z.tolist(), name, shapes
    )
    with torch.no_grad():
        close(p, pair.A.decoder(z).softmax(-1))
        if name == "untrained":
            return
        trits = operations.operation_at(torch.tensor([5, 9841, 14_000]))
        shapes = [[256, 9], [128, 256], [64, 128], [16, 64]]
        code = call(
            "(() => { const all = t.layersOf(t.weights[given[1]].encoder, given[2]); return given[0].map((x) =>"
            " [...t.encode({ body: all.slice(0, 3), mean: all[3] }, x)]); })()",
            *(trits.tolist(), name, shapes),
        )
        close(code, pair.A.encoder(trits.double()).mean)


def test_decoder_by_hand_and_readings(call):
    slope = 8.0
    assert call("t.offset(given[0])", slope) == pytest.approx(product_codes.offset(slope), abs=1e-5)
    z = torch.linspace(-2, 2, 16)
    p = product_codes.hand_written(slope)(z[None])[0].softmax(-1).tolist()
    close(call("t.byHand(given[1], given[2])(given[0])", z.tolist(), slope, product_codes.offset(slope)), p, 1e-4)
    read = call("t.readings(given[0])", p)
    assert read["argmax"] == (torch.tensor(p).argmax(-1) - 1).tolist()
    assert read["rounded"] == [round(of[2] - of[0]) for of in p]
    trits = read["argmax"]
    expected = math.prod(of[trit + 1] for of, trit in zip(p, trits, strict=True))
    assert call("t.likelihood(given[0], given[1])", p, trits) == pytest.approx(expected)


def test_coverage_of_an_uneven_generator(call):
    normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)
    for u in (1e-6, 0.00125, 0.3, 0.5, 0.975, 0.999):
        assert call("t.quantile(given[0])", u) == pytest.approx(
            normal.icdf(torch.tensor(u, dtype=torch.float64)).item(), abs=1e-7
        )
        assert call("t.cumulative(t.quantile(given[0]))", u) == pytest.approx(u, rel=1e-7)
    p = torch.tensor(call("t.uneven(0.4)"), dtype=torch.float64)
    assert p.mean().item() == pytest.approx(1 / operations.SIZE)
    assert call("t.klUniform(t.uneven(0.4))") == pytest.approx(0.08, rel=0.02)
    for draws in (1000, 50_000, 195_000):
        assert call("t.uniformCoverage(given[0])", draws) == pytest.approx(coverage.uniform_coverage(draws), abs=1e-9)
        found = call("t.expectedCoverage(t.uneven(0.4), given[0])", draws)
        assert found == pytest.approx(coverage.expected_coverage(p, draws), abs=1e-9)
    found = call("t.nearlyFullCoverage(t.uneven(0), 195000)")
    assert found == pytest.approx(coverage.uniform_full_coverage(195_000), abs=1e-3)


@pytest.mark.parametrize("given", [(0.0, 1.0, 1.0, 0.5, 0.5), (0.3, 0.9, 1.1, 0.8, 0.6), (0.7, 0.4, 0.5, 1.0, 0.7)])
def test_growth_of_a_signal_in_coupled_pathways(call, given):
    close(call("t.growthMatrix(...given)", *given), coupling.growth_matrix(*given))
    assert call("t.growthRate(...given)", *given) == pytest.approx(coupling.growth_rate(*given), abs=1e-9)


@pytest.mark.parametrize(("power", "scaled"), [(1.0, True), (1.0, False), (0.5, False)])
@pytest.mark.parametrize("raw", [0.05, 0.9, 3.0])
def test_balance_loop_step_by_step(call, power, scaled, raw):
    alphas = [0.9, 0.95]
    given = {"power": power, "scaled": scaled, "alphas": alphas}
    path = call("t.balanceLoop([1, given[0]], 20, given[1])", raw, given)
    average, factors = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    for step, found in enumerate(path):
        norms = torch.tensor([1.0, raw], dtype=torch.float64)
        norms = norms * factors if scaled else norms
        average = losses.average_norms(average, norms, torch.tensor(step == 0), alphas)
        factors = losses.balance_factors(average, power)
        close(found["average"], average)
        close(found["factors"], factors)


def test_repulsion_of_codes_of_the_prior(call):
    for given in ((0.5, 16, 1.0), (4.0, 2, 0.7)):
        assert call("t.expectedRepulsion(...given)", *given) == pytest.approx(
            losses.expected_repulsion(*given), rel=1e-9
        )


def test_random_codes_are_normal(call):
    drawn = torch.tensor(call("t.normals(t.random(7), 20000)"))
    assert drawn.mean().item() == pytest.approx(0, abs=0.03)
    assert drawn.std().item() == pytest.approx(1, abs=0.02)


def test_masses_are_those_of_the_reference_run(call):
    epochs, log_p = Run(REFERENCE).log_p()
    masses = live.masses()
    places = [epochs.tolist().index(epoch) for epoch in masses["epochs"]]
    steps = call("[...Uint8Array.from(atob(t.masses.steps), (c) => c.charCodeAt(0))].slice(0, 3 * 19683)")
    found = masses["floor"] + masses["step"] * np.array(steps[: 2 * operations.SIZE]).reshape(2, -1)
    expected = log_p[places[0]].double().numpy() + math.log(operations.SIZE)
    assert np.abs(found - expected).max() <= masses["step"] / 2 + 0.004


def test_data_hold_no_more_than_the_results(data):
    text = (data / "course.js").read_text()
    course = json.loads(text.removeprefix("tvae.course = ").removesuffix(";\n"))
    assert len(course["seeds"]) == 10
    assert all(len(of_seed) == len(course["epochs"]) for rows in course["values"].values() for of_seed in rows)
    assert all((data / f"{name}.js").stat().st_size < 700_000 for name in live.DATA)


class Figure:
    """A live figure on its page: set by keyboard or by choice, and read."""

    def __init__(self, visit: Visit, name: str):
        self.visit, self.place = visit, visit.tab.locator(f"#live-{name}")

    def press(self, label: str, key: str) -> None:
        self.place.get_by_label(label, exact=True).focus()
        self.visit.tab.keyboard.press(key)

    def choose(self, label: str, value: str) -> None:
        self.place.get_by_label(label, exact=True).select_option(value)

    def read(self, label: str) -> str:
        return self.place.locator(f'output[data-reading="{label}"]').inner_text()


@pytest.fixture
def opened(browser, html):  # noqa: F811
    """Opens a page and gives its live figure; nothing may go wrong on the page meanwhile."""
    visits = []

    def opening(page: str, name: str) -> Figure:
        visits.append(Visit(browser, html, page))
        return Figure(visits[-1], name)

    yield opening
    for visit in visits:
        assert visit.problems == []
        visit.context.close()


def test_coverage_moves_with_the_draws(opened):
    figure = opened("notebooks/01b_coverage", "coverage")
    before = figure.read("expected coverage")
    figure.press("draws N", "ArrowRight")
    draws = round(10**4.71)
    assert figure.read("of a uniform generator, the bound") == f"{100 * coverage.uniform_coverage(draws):.3f} %"
    assert figure.read("expected coverage") > before
    figure.press("divergence from uniform, nats", "Home")
    assert figure.read("expected coverage") == f"{100 * coverage.uniform_coverage(draws):.3f} %"


def test_a_code_is_decoded_as_the_library_decodes_it(opened):
    figure = opened("notebooks/02c_best_codes", "decoder")
    product = operations.named_operations()["product"]
    figure.choose("operation", "product")
    assert figure.read("operation by argmax") == f"{operations.index_of(product).item():,}"
    pair = Run(ROOT / "results" / "repaired").model()
    with torch.no_grad():
        z = (pair.A.encoder(product.float()[None]).mean * 100).round() / 100
        p = pair.A.decoder(z)[0].softmax(-1)
    expected = p.gather(-1, product.long()[:, None] + 1).prod().item()
    assert figure.read("probability of the operation chosen above") == f"{100 * expected:.1f} %"
    figure.place.get_by_role("button", name="zero").click()
    figure.choose("decoder A", "hand")
    assert figure.read("operation by argmax") == "9,841"


def test_trainings_are_those_of_the_table(opened):
    figure = opened("notebooks/09_convergence", "training")
    figure.press("seed", "ArrowRight")
    figure.press("epoch", "Home")
    figure.press("epoch", "ArrowRight")
    base = tables.read("base").query("seed == 1").sort_values("epoch").iloc[1]
    told = ", ".join(f"{p} {100 * base[f'sampled_50000_{p}']:.1f} %" for p in "AB")
    assert figure.read("coverage of 50,000 draws") == told


def test_growth_rate_moves_with_the_permeability(opened):
    figure = opened("notebooks/04b_collapse", "coupling")
    figure.press("permeability ρ", "ArrowRight")
    expected = coupling.growth_rate(0.31, 1.0, 0.9, 0.8, 0.8 * 0.71)
    assert figure.read("growth rate") == f"{expected:.3f}"
    figure.press("β of A", "End")
    assert figure.read("collapse is") == "stable: the code dies"


def test_balance_rests_where_the_library_says(opened):
    figure = opened("notebooks/06d_balance", "balance")
    assert float(figure.read("scaled norms, B over A")) == pytest.approx(balance.settled_ratio(4.0), abs=5e-3)
    figure.choose("factors from", "root")
    assert figure.read("scaled norms, B over A") == "1.000"
    figure.press("width σ", "ArrowRight")
    assert float(figure.read("mean kernel")) == pytest.approx(losses.expected_repulsion(0.6, 16), rel=5e-3)


def test_mechanisms_are_those_of_the_table(opened):
    figure = opened("notebooks/10_ablations", "mechanisms")
    figure.choose("system", "no collisions")
    end = tables.read("ablations").query("variant == 'no collisions' and epoch == 400")
    told = ", ".join(f"{p} {end[f'kl_uniform_{p}'].mean():.4f}" for p in "AB")
    assert figure.read("divergence from uniform, nats") == told
    assert figure.read("trainings") == str(len(end))


def test_an_operation_is_found_by_name_index_and_signs(opened):
    figure = opened("book/explorer", "explorer")
    named = operations.named_operations()
    field = figure.place.get_by_label("name, index (0 to 19,682) or nine of −, 0, +")
    index = operations.index_of(named["sum mod 3"]).item()
    for given in ("sum mod 3", f"{index:,}", "".join("−0+"[trit + 1] for trit in named["sum mod 3"].tolist())):
        field.fill("no such thing")
        field.press("Enter")
        assert "is no operation" in figure.place.get_by_role("alert").inner_text()
        field.fill(given)
        field.press("Enter")
        assert figure.read("index") == f"{index:,}"
        assert figure.read("known as") == "sum mod 3"
    pair = Run(ROOT / "results" / "repaired").model()
    with torch.no_grad():
        mean = pair.A.encoder(named["sum mod 3"].float()[None]).mean[0]
    found = [float(text) for text in figure.read("its code, sixteen means").split(", ")]
    assert found == pytest.approx(mean.tolist(), abs=0.006)
