// Chapter 4: when a small signal grows in coupled pathways, and whose it is.
tvae.figure("live-coupling", (place) => {
  const { slider, told, plot, range, COLOURS } = tvae, say = (x) => x.toFixed(2);
  const make = (label, min, max, value) => slider(place, { label, min, max, step: 0.01, value, say, change: () => draw() });
  const rho = make("permeability ρ", 0, 0.95, 0.3), beta = make("β of A", 0.05, 2, 0.8), ratio = make("β of B over that of A", 0.2, 2, 0.71);
  const tauA = make("τ of A", 0.1, 1.5, 1), tauB = make("τ of B", 0.1, 1.5, 0.9);
  const rate = told(place, "growth rate"), state = told(place, "collapse is"), whose = told(place, "of the growing signal, A has");
  const xs = range(96).map((i) => i / 100);
  const curve = plot(place, "growth rate over the permeability", {
    x: { low: 0, high: 0.95, ticks: [0, 0.25, 0.5, 0.75], label: "permeability ρ" },
    y: { low: -2, high: 4, ticks: [-2, 0, 2, 4], label: "growth rate" },
  });
  const draw = () => {
    const given = [tauA.value, tauB.value, beta.value, beta.value * ratio.value], found = tvae.growthRate(rho.value, ...given);
    const [[own, from]] = tvae.growthMatrix(rho.value, ...given);
    rate.textContent = found.toFixed(3);
    state.textContent = found > 0 ? "unstable: a signal grows" : "stable: the code dies";
    const side = from > 0 ? (found - own) / from : null;  // B's part of the eigenvector over A's
    whose.textContent = side === null ? "its own alone, nothing is shared" : tvae.percent(1 / (1 + side), 0);
    curve(
      [
        { xs: [0, 0.95], ys: [0, 0], colour: COLOURS.uniform, dashes: "6 3" },
        { xs, ys: xs.map((x) => tvae.growthRate(x, ...given)), colour: COLOURS.A },
      ],
      [{ at: rho.value, value: found, colour: COLOURS.A }]
    );
  };
  draw();
});
