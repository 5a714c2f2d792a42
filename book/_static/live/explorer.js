// The explorer: any of the 19,683 operations, by name, index or truth table.
tvae.figure("live-explorer", (place) => {
  const { element, choice, told, glyph, plot, range, COLOURS, SIGNS, SIZE } = tvae, masses = tvae.masses;
  const steps = Uint8Array.from(atob(masses.steps), (c) => c.charCodeAt(0));
  const mass = (epoch, pathway, index) => masses.floor + masses.step * steps[(epoch * 2 + pathway) * SIZE + index];
  const row = element(place, "form", { class: "tvae-row" }), field = "tvae-explorer-field";
  element(row, "label", { for: field }, "name, index (0 to 19,682) or nine of −, 0, +");
  const input = element(row, "input", { id: field, list: "tvae-names", value: "Kleene and", autocomplete: "off" });
  const names = element(row, "datalist", { id: "tvae-names" });
  Object.keys(tvae.named).forEach((name) => element(names, "option", { value: name }));
  element(row, "button", {}, "show");
  const problem = element(place, "p", { class: "tvae-problem", role: "alert" });
  const show = glyph(place, "truth table, rows f(x, ·), columns f(·, y), from − to +");
  const index = told(place, "index"), name = told(place, "known as"), orbit = told(place, "its orbit"), has = told(place, "it is");
  const end = told(place, "M p(x) at epoch 400");
  const curve = plot(place, "M p(x) over the training of the document's pair", {
    x: { low: 0, high: 400, ticks: [0, 100, 200, 300, 400], label: "epoch" },
    y: { low: 0.01, high: 10, ticks: [0.01, 0.1, 1, 10], label: "M p(x); even is 1" },
    log: true,
  });
  const from = choice(place, { label: "code and neighbours by", options: [["repaired", "encoder A, repaired"], ["trained", "encoder A of the document's pair"]], change: () => near() });
  const code = told(place, "its code, sixteen means"), neighbours = told(place, "nearest, of its orbit and of those with one other trit");
  const INTO = [[256, 9], [128, 256], [64, 128], [16, 64]], encoders = {};
  const encoder = (which) => {
    encoders[which] ??= tvae.layersOf(tvae.weights[which].encoder, INTO);
    const layers = encoders[which];
    return (trits) => tvae.encode({ body: layers.slice(0, 3), mean: layers[3] }, trits);
  };
  const parse = (text) => {
    const given = text.trim(), known = Object.keys(tvae.named).find((one) => one.toLowerCase() === given.toLowerCase());
    if (known) return tvae.named[known];
    const signs = given.replace(/[\s,]/g, "").replace(/-/g, "−").replace(/−1/g, "−").replace(/\+?1/g, "+");
    if (/^[−0+]{9}$/.test(signs)) return [...signs].map((sign) => SIGNS.indexOf(sign) - 1);
    const number = given.replace(/,/g, "");
    return /^\d{1,5}$/.test(number) && Number(number) < SIZE ? tvae.operationAt(Number(number)) : null;
  };
  let trits = null;
  const far = (a, b) => tvae.sum(range(a.length).map((i) => (a[i] - b[i]) ** 2));
  const near = () => {
    const encode = encoder(from.value), own = encode(trits), at = tvae.indexOf(trits);
    code.textContent = [...own].map((x) => x.toFixed(2)).join(", ");
    const others = new Set(tvae.orbit(trits));
    trits.forEach((_, j) => [-1, 0, 1].forEach((trit) => others.add(tvae.indexOf(trits.with(j, trit)))));
    others.delete(at);
    const found = [...others].map((i) => [far(encode(tvae.operationAt(i)), own), i]).sort((a, b) => a[0] - b[0]).slice(0, 5);
    neighbours.textContent = found.map(([d, i]) => `${i.toLocaleString("en")} (${Math.sqrt(d).toFixed(2)})`).join(", ");
  };
  const draw = () => {
    const found = parse(input.value);
    problem.textContent = found ? "" : `“${input.value}” is no operation; it must be a name of the list, an index from 0 to 19,682, or nine of −, 0 and +.`;
    if (!found) return;
    trits = found;
    const at = tvae.indexOf(trits), images = tvae.orbit(trits), known = Object.entries(tvae.named).find(([, of]) => tvae.indexOf(of) === at);
    show(trits);
    index.textContent = at.toLocaleString("en");
    name.textContent = known ? known[0] : "no name";
    orbit.textContent = `${images.length}: ${images.map((i) => i.toLocaleString("en")).join("; ")}`;
    has.textContent = Object.entries(tvae.properties(trits)).filter(([, holds]) => holds).map(([property]) => property).join(", ") || "none of commutative, associative, idempotent, monotone, onto";
    const path = [0, 1].map((pathway) => masses.epochs.map((_, i) => Math.exp(mass(i, pathway, at))));
    end.textContent = path.map((ys, i) => `${"AB"[i]} ${ys.at(-1).toFixed(2)}`).join(", ");
    curve([
      { xs: [0, 400], ys: [1, 1], colour: COLOURS.uniform, dashes: "6 3" },
      ...path.map((ys, i) => ({ xs: masses.epochs, ys, colour: COLOURS["AB"[i]] })),
    ]);
    near();
  };
  row.addEventListener("submit", (event) => (event.preventDefault(), draw()));
  draw();
});
