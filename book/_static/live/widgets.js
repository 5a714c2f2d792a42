// What the live figures are made of: sliders, choices, readings, and plots in SVG. No framework; everything by keyboard.
(() => {
  const SPACE = "http://www.w3.org/2000/svg";
  const COLOURS = { A: "#0072b2", B: "#d55e00", uniform: "#222222", untrained: "#7a7a7a" };
  const FILLS = ["#762a83", "#f2f0ea", "#1b7837"], INKS = ["#ffffff", "#222222", "#ffffff"], SIGNS = ["−", "0", "+"];
  let count = 0;

  const element = (parent, tag, attributes = {}, text = "") => {
    const made = document.createElement(tag);
    Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
    made.textContent = text;
    parent?.append(made);
    return made;
  };
  const figure = (id, draw) => {  // draws in the element with this id once the page is there
    const start = () => {
      const place = document.getElementById(id);
      if (place) draw(place);
    };
    document.readyState === "loading" ? document.addEventListener("DOMContentLoaded", start) : start();
  };
  const slider = (parent, { label, min, max, step, value, say = String, change }) => {
    const id = `tvae-input-${count++}`, row = element(parent, "div", { class: "tvae-slider" });
    element(row, "label", { for: id }, label);
    const input = element(row, "input", { id, type: "range", min, max, step }), shown = element(row, "output", { for: id });
    const tell = () => {
      shown.textContent = say(Number(input.value));
      input.setAttribute("aria-valuetext", shown.textContent);
    };
    input.value = value;
    tell();
    input.addEventListener("input", () => (tell(), change()));
    return { get value() { return Number(input.value); }, set value(x) { input.value = x; tell(); } };
  };
  const choice = (parent, { label, options, change }) => {
    const id = `tvae-input-${count++}`, row = element(parent, "div", { class: "tvae-choice" });
    element(row, "label", { for: id }, label);
    const input = element(row, "select", { id });
    options.forEach(([value, text]) => element(input, "option", { value }, text));
    input.addEventListener("change", change);
    return { get value() { return input.value; }, set value(x) { input.value = x; } };
  };
  const button = (parent, text, press) => element(parent, "button", { type: "button" }, text).addEventListener("click", press);
  const told = (parent, label) => {  // a reading that a screen reader is told of when it changes
    const row = element(parent, "p", { class: "tvae-told" });
    element(row, "span", {}, `${label}: `);
    return element(row, "output", { "data-reading": label });
  };
  const drawing = (parent, width, height, label) => {
    const svg = document.createElementNS(SPACE, "svg");
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", label);
    parent.append(svg);
    const add = (tag, attributes, text = "") => {
      const made = document.createElementNS(SPACE, tag);
      Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
      made.textContent = text;
      svg.append(made);
      return made;
    };
    return { svg, add, clear: () => svg.replaceChildren() };
  };
  const glyph = (parent, label) => {  // a truth table; each cell has a bar for each value's probability, where there are any
    const { svg, add, clear } = drawing(parent, 156, 156, label);
    svg.classList.add("tvae-glyph");
    return (trits, p) => {
      clear();
      trits.forEach((trit, j) => {
        const x = 3 + (j % 3) * 50, y = 3 + Math.floor(j / 3) * 50;
        add("rect", { x, y, width: 48, height: 48, fill: FILLS[trit + 1] });
        add("text", { x: x + 24, y: y + (p ? 18 : 25), fill: INKS[trit + 1] }, SIGNS[trit + 1]);
        if (p) add("rect", { x: x + 3, y: y + 28, width: 42, height: 19, fill: "#fcfcfa" });
        (p?.[j] ?? []).forEach((share, k) => {
          const height = 16 * share;
          add("rect", { x: x + 6 + 13 * k, y: y + 46 - height, width: 10, height, fill: FILLS[k], stroke: "#888888", "stroke-width": 0.5 });
        });
      });
      svg.setAttribute("aria-label", `${label}: ${trits.map((trit) => SIGNS[trit + 1]).join(" ")}`);
    };
  };
  const plot = (parent, label, { x, y, log = false, width = 420, height = 190 }) => {
    const { add, clear, svg } = drawing(parent, width, height, label);
    svg.classList.add("tvae-plot");
    const [left, right, top, bottom] = [52, width - 10, 12, height - 34];
    const across = (v) => left + ((v - x.low) / (x.high - x.low)) * (right - left);
    const turn = log ? Math.log10 : (v) => v;
    const up = (v) => bottom - ((turn(v) - turn(y.low)) / (turn(y.high) - turn(y.low))) * (bottom - top);
    return (lines, marks = []) => {
      clear();
      y.ticks.forEach((tick) => {
        add("line", { x1: left, x2: right, y1: up(tick), y2: up(tick), stroke: "#dddddd" });
        add("text", { x: left - 6, y: up(tick), "text-anchor": "end" }, String(tick));
      });
      x.ticks.forEach((tick) => add("text", { x: across(tick), y: bottom + 13, "text-anchor": "middle" }, String(tick)));
      add("text", { x: (left + right) / 2, y: height - 6, "text-anchor": "middle" }, x.label);
      add("text", { x: left, y: 7, "text-anchor": "start" }, y.label);
      lines.forEach(({ xs, ys, colour, dashes = "", wide = 1.6 }) => {
        const points = xs.map((v, i) => `${across(v).toFixed(1)},${up(Math.min(y.high, Math.max(y.low, ys[i]))).toFixed(1)}`);
        add("polyline", { points: points.join(" "), fill: "none", stroke: colour, "stroke-width": wide, "stroke-dasharray": dashes });
      });
      marks.forEach(({ at, value, colour, square }) => {
        const [cx, cy] = [across(at), up(Math.min(y.high, Math.max(y.low, value)))];
        square ? add("rect", { x: cx - 4, y: cy - 4, width: 8, height: 8, fill: colour }) : add("circle", { cx, cy, r: 4.5, fill: colour });
      });
    };
  };
  const percent = (share, digits = 2) => `${(100 * share).toFixed(digits)} %`;
  Object.assign(window.tvae, { COLOURS, SIGNS, element, figure, slider, choice, button, told, glyph, plot, percent });
})();
