// Chapter 10: the repaired pair without a mechanism, or two plain VAEs with one.
tvae.figure("live-mechanisms", (place) => {
  const { choice, told, percent } = tvae, table = tvae.ablations;
  const which = choice(place, {
    label: "system",
    options: Object.keys(table).map((name) => [name, name === "repaired" ? "the repaired pair" : name === "bare" ? "two plain VAEs" : name]),
    change: () => draw(),
  });
  which.value = "repaired";
  const trained = (name) => (name === "A alone" ? ["A"] : name === "B alone" ? ["B"] : ["A", "B"]);
  const both = (row, column, say) => trained(which.value).map((p) => `${p} ${say(row[`${column}_${p}`])}`).join(", ");
  const readings = {
    kl_uniform: ["divergence from uniform, nats", (x) => x.toFixed(4)],
    information: ["information of a code, nats", (x) => x.toFixed(1)],
    exact: ["back from its own code", (x) => percent(x, 1)],
    exact_of_partner: ["back from the partner's", (x) => percent(x, 1)],
  };
  const shown = Object.fromEntries(Object.entries(readings).map(([column, [label]]) => [column, told(place, label)]));
  const seeds = told(place, "trainings");
  const draw = () => {
    const row = table[which.value];
    Object.entries(readings).forEach(([column, [, say]]) => (shown[column].textContent = both(row, column, say)));
    seeds.textContent = row.seeds;
  };
  draw();
});
