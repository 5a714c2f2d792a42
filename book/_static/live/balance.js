// Chapter 6: the loop of factors and norms, step by step; and repulsion between codes of the prior.
tvae.figure("live-balance", (place) => {
  const { element, slider, choice, told, plot, range, COLOURS } = tvae;
  const FORMS = { written: { power: 1, scaled: true }, raw: { power: 1, scaled: false }, root: { power: 0.5, scaled: false } };
  const form = choice(place, {
    label: "factors from",
    options: [["written", "norms that they scale, as written"], ["raw", "raw norms"], ["root", "raw norms, their root (repaired)"]],
    change: () => draw(),
  });
  const raw = slider(place, { label: "raw norms, B over A", min: -3, max: 3, step: 0.05, value: 2, say: (x) => (2 ** x).toFixed(2), change: () => draw() });
  const alpha = slider(place, { label: "memory α of the norms", min: 0, max: 0.99, step: 0.01, value: 0.9, say: (x) => x.toFixed(2), change: () => draw() });
  const step = slider(place, { label: "step", min: 1, max: 60, step: 1, value: 60, change: () => draw() });
  const ratio = told(place, "scaled norms, B over A"), factors = told(place, "factors of A, B");
  const curve = plot(place, "ratio of the scaled norms over the steps", {
    x: { low: 0, high: 60, ticks: [0, 20, 40, 60], label: "step" },
    y: { low: 0.1, high: 10, ticks: [0.1, 1, 10], label: "scaled norms, B over A" },
    log: true,
  });
  const draw = () => {
    const path = tvae.balanceLoop([1, 2 ** raw.value], 60, { ...FORMS[form.value], alphas: [alpha.value, alpha.value] }), at = path[step.value - 1];
    ratio.textContent = at.ratio.toFixed(3);
    factors.textContent = at.factors.map((g) => g.toFixed(2)).join(", ");
    curve(
      [
        { xs: [0, 60], ys: [1, 1], colour: COLOURS.uniform, dashes: "6 3" },
        { xs: range(61), ys: [2 ** raw.value, ...path.map((one) => one.ratio)], colour: COLOURS.A },
      ],
      [{ at: step.value, value: at.ratio, colour: COLOURS.A }]
    );
  };
  draw();

  element(place, "p", { class: "tvae-title" }, "Repulsion between two codes of the prior");
  const width = slider(place, { label: "width σ", min: 0.1, max: 8, step: 0.1, value: 0.5, say: (x) => x.toFixed(1), change: () => repel() });
  const latent = slider(place, { label: "coordinates d", min: 1, max: 32, step: 1, value: 16, change: () => repel() });
  const kernel = told(place, "mean kernel");
  const repel = () => (kernel.textContent = tvae.expectedRepulsion(width.value, latent.value, 1).toPrecision(3));
  repel();
});
