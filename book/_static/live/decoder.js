// Chapter 2: a code of sixteen numbers, and the operation that decoder A makes of it.
tvae.figure("live-decoder", (place) => {
  const { element, slider, choice, button, told, glyph, range, LATENT, percent } = tvae;
  const SHAPES = [[32, 16], [64, 32], [27, 64]], INTO = [[256, 9], [128, 256], [64, 128], [16, 64]];
  const SLOPE = 8;
  const decoders = {}, encoders = {};
  Object.entries(tvae.weights).forEach(([name, { decoder, encoder }]) => {
    const layers = tvae.layersOf(decoder, SHAPES);
    decoders[name] = (z) => tvae.decode(layers, z);
    if (encoder) {
      const all = tvae.layersOf(encoder, INTO);
      encoders[name] = (trits) => tvae.encode({ body: all.slice(0, 3), mean: all[3] }, trits);
    }
  });
  decoders.hand = tvae.byHand(SLOPE, tvae.offset(SLOPE));
  encoders.hand = (trits) => [...trits.map((trit) => 1.6 * trit), ...Array(LATENT - trits.length).fill(0)];

  const top = element(place, "div", { class: "tvae-row" });
  const which = choice(top, {
    label: "decoder A",
    options: [["repaired", "of the repaired pair"], ["trained", "of the document's pair"], ["hand", "written by hand"], ["untrained", "untrained"]],
    change: () => draw(),
  });
  const operation = choice(top, { label: "operation", options: Object.keys(tvae.named).map((name) => [name, name]), change: () => own() });
  button(top, "its own code", () => own());
  let uniform = tvae.random(1);
  button(top, "a code of the prior", () => set(tvae.normals(uniform, LATENT)));
  button(top, "zero", () => set(Array(LATENT).fill(0)));
  const middle = element(place, "div", { class: "tvae-row" });
  const sliders = element(middle, "div", { class: "tvae-sliders" });
  const code = range(LATENT).map((i) =>
    slider(sliders, { label: `z${i + 1}`, min: -3.5, max: 3.5, step: 0.01, value: 0, say: (x) => x.toFixed(2), change: () => draw() })
  );
  const right = element(middle, "div");
  const show = glyph(right, "most likely values, and the probability of −, 0 and +");
  const found = told(right, "operation by argmax"), rounded = told(right, "rounded"), probability = told(right, "its probability given the code");
  const meant = told(right, "probability of the operation chosen above");
  const set = (z) => (z.forEach((x, i) => (code[i].value = Math.max(-3.5, Math.min(3.5, x)))), draw());
  const own = () => {
    const encode = encoders[which.value];
    encode ? set([...encode(tvae.named[operation.value])]) : draw();
  };
  const draw = () => {
    const p = decoders[which.value](code.map((one) => one.value)), read = tvae.readings(p);
    show(read.argmax, p);
    found.textContent = tvae.indexOf(read.argmax).toLocaleString("en");
    rounded.textContent = tvae.indexOf(read.rounded).toLocaleString("en");
    probability.textContent = percent(tvae.likelihood(p, read.argmax), 1);
    meant.textContent = percent(tvae.likelihood(p, tvae.named[operation.value]), 1);
  };
  own();
});
