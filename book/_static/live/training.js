// Chapter 9: the document's system over the epochs, seed by seed.
tvae.figure("live-training", (place) => {
  const { slider, told, plot, percent, COLOURS } = tvae, { epochs, seeds, values } = tvae.course;
  const MEASURES = {
    sampled_50000: ["coverage of 50,000 draws", { low: 0.7, high: 1, ticks: [0.7, 0.8, 0.9, 1] }],
    has: ["share of the operations held", { low: 0.4, high: 1, ticks: [0.4, 0.6, 0.8, 1] }],
    information: ["information of a code, nats", { low: 0, high: 10, ticks: [0, 2, 4, 6, 8, 10] }],
  };
  const seed = slider(place, { label: "seed", min: 0, max: seeds.length - 1, step: 1, value: 0, change: () => draw() });
  const place_of = slider(place, { label: "epoch", min: 0, max: epochs.length - 1, step: 1, value: epochs.length - 1, say: (i) => String(epochs[i]), change: () => draw() });
  const readings = {}, curves = {};
  Object.entries(MEASURES).forEach(([name, [label, y]]) => {
    curves[name] = plot(place, label, { x: { low: 0, high: 400, ticks: [0, 100, 200, 300, 400], label: "epoch" }, y: { ...y, label }, height: 150 });
    readings[name] = told(place, label);
  });
  const temperature = told(place, "τ of A");
  const draw = () => {
    const i = place_of.value, at = (column) => values[column][seed.value];
    Object.keys(MEASURES).forEach((name) => {
      const say = name === "information" ? (x) => x.toFixed(2) : (x) => percent(x, 1);
      const pair = ["A", "B"].map((p) => ({ p, ys: at(`${name}_${p}`) }));
      curves[name](
        pair.map(({ p, ys }) => ({ xs: epochs, ys, colour: COLOURS[p] })),
        pair.map(({ p, ys }) => ({ at: epochs[i], value: ys[i], colour: COLOURS[p], square: p === "B" }))
      );
      readings[name].replaceChildren();
      pair.forEach(({ p, ys }) => {
        if (p === "B") readings[name].append(", ");
        tvae.element(readings[name], "span", { style: `border-bottom: 3px solid ${COLOURS[p]}` }, `${p} ${say(ys[i])}`);
      });
    });
    temperature.textContent = at("tau_A")[i].toFixed(3);
  };
  draw();
});
