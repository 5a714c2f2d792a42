// Chapter 1: how much a generator covers, by its unevenness and the number of draws; and three readings of a trit.
tvae.figure("live-coverage", (place) => {
  const { element, slider, told, plot, percent, range, COLOURS } = tvae;
  const draws = slider(place, { label: "draws N", min: 3, max: 6, step: 0.01, value: 4.69897, say: (x) => Math.round(10 ** x).toLocaleString("en"), change: () => draw() });
  const spread = slider(place, { label: "divergence from uniform, nats", min: 0, max: 0.5, step: 0.002, value: 0.1, say: (x) => x.toFixed(3), change: () => draw() });
  const covered = told(place, "expected coverage"), bound = told(place, "of a uniform generator, the bound"), all = told(place, "chance that nothing is missing");
  const TICKS = [3, 4, 5, 6];
  const curve = plot(place, "expected coverage over the number of draws", {
    x: { low: 3, high: 6, ticks: TICKS, label: "draws, power of ten" },
    y: { low: 0, high: 1, ticks: [0, 0.25, 0.5, 0.75, 1], label: "coverage" },
  });
  const xs = range(61).map((i) => 3 + i / 20);
  const draw = () => {
    const N = Math.round(10 ** draws.value), p = tvae.uneven(Math.sqrt(2 * spread.value));
    covered.textContent = percent(tvae.expectedCoverage(p, N), 3);
    bound.textContent = percent(tvae.uniformCoverage(N), 3);
    all.textContent = percent(tvae.nearlyFullCoverage(p, N), 1);
    curve(
      [
        { xs, ys: xs.map((x) => tvae.uniformCoverage(10 ** x)), colour: COLOURS.uniform, dashes: "6 3" },
        { xs, ys: xs.map((x) => tvae.expectedCoverage(p, 10 ** x)), colour: COLOURS.A },
      ],
      [{ at: draws.value, value: tvae.expectedCoverage(p, N), colour: COLOURS.A }]
    );
  };
  draw();

  element(place, "p", { class: "tvae-title" }, "One trit, read in three ways");
  const minus = slider(place, { label: "probability of −", min: 0, max: 1, step: 0.01, value: 0.4, say: (x) => percent(x, 0), change: () => read() });
  const plus = slider(place, { label: "of +, of what is left", min: 0, max: 1, step: 0.01, value: 0.5, say: (x) => percent(x, 0), change: () => read() });
  const sampled = told(place, "sampled: −, 0, +"), argmax = told(place, "argmax"), rounded = told(place, "rounded expectation");
  const read = () => {
    const first = minus.value, last = (1 - first) * plus.value, p = [first, 1 - first - last, last];
    const { argmax: top, rounded: mean } = tvae.readings([p]);
    sampled.textContent = p.map((share) => percent(share, 0)).join(", ");
    argmax.textContent = tvae.SIGNS[top[0] + 1];
    rounded.textContent = `${tvae.SIGNS[mean[0] + 1]} (of ${(last - first).toFixed(2)})`;
  };
  read();
});
