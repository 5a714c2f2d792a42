// What the live figures compute: the library's functions of the same names, tested against them.
(() => {
  const TRITS = 9, VALUES = 3, SIZE = VALUES ** TRITS, LATENT = 16;
  const range = (n) => Array.from({ length: n }, (_, i) => i);
  const sum = (values) => values.reduce((a, b) => a + b, 0);

  // Operations: arrays of nine trits -1, 0, 1, row by row.
  const operationAt = (index) => [...index.toString(3).padStart(TRITS, "0")].map((digit) => digit - 1);
  const indexOf = (trits) => trits.reduce((index, trit) => index * VALUES + trit + 1, 0);
  const value = (trits, a, b) => trits[(a + 1) * VALUES + b + 1];
  const table = (f) => range(TRITS).map((place) => f(Math.floor(place / VALUES) - 1, (place % VALUES) - 1));
  const relabel = (trits, pi, swap) => {
    const back = [0, 0, 0];
    pi.forEach((to, from) => (back[to + 1] = from - 1));
    return table((a, b) => {
      const [x, y] = swap ? [b, a] : [a, b];
      return pi[value(trits, back[x + 1], back[y + 1]) + 1];
    });
  };
  const RELABELLINGS = [[-1, 0, 1], [-1, 1, 0], [0, -1, 1], [0, 1, -1], [1, -1, 0], [1, 0, -1]];
  const orbit = (trits) => {
    const images = RELABELLINGS.flatMap((pi) => [false, true].map((swap) => indexOf(relabel(trits, pi, swap))));
    return [...new Set(images)].sort((a, b) => a - b);
  };
  const every = (test) => [-1, 0, 1].every((a) => [-1, 0, 1].every((b) => test(a, b)));
  const properties = (trits) => {
    const f = (a, b) => value(trits, a, b);
    return {
      commutative: every((a, b) => f(a, b) === f(b, a)),
      associative: every((a, b) => [-1, 0, 1].every((c) => f(f(a, b), c) === f(a, f(b, c)))),
      idempotent: [-1, 0, 1].every((a) => f(a, a) === a),
      monotone: every((a, b) => (a === 1 || f(a, b) <= f(a + 1, b)) && (b === 1 || f(a, b) <= f(a, b + 1))),
      onto: new Set(trits).size === VALUES,
    };
  };
  const NAMED = {
    "Kleene and": table(Math.min),
    "Kleene or": table(Math.max),
    "Kleene implication": table((a, b) => Math.max(-a, b)),
    "Łukasiewicz implication": table((a, b) => Math.min(1 - a + b, 1)),
    "Gödel implication": table((a, b) => (a <= b ? 1 : b)),
    "sum mod 3": table((a, b) => ((a + b + 4) % 3) - 1),
    product: table((a, b) => a * b + 0),
    "clipped sum": table((a, b) => Math.max(-1, Math.min(1, a + b))),
    consensus: table((a, b) => (a === b ? a : 0)),
    comparison: table((a, b) => Math.sign(a - b)),
    "first argument": table((a) => a),
    "constant 0": table(() => 0),
  };
  const named = Object.fromEntries(Object.entries(NAMED).map(([name, trits]) => [name, trits.map((trit) => trit + 0)]));

  // Networks: a layer is {weight: Float32Array (out x in), bias: Float32Array (out)}.
  const linear = ({ weight, bias }, input) => {
    const out = new Float64Array(bias.length);
    for (let i = 0; i < bias.length; i++) {
      let total = bias[i];
      for (let j = 0, at = i * input.length; j < input.length; j++) total += weight[at + j] * input[j];
      out[i] = total;
    }
    return out;
  };
  const rectified = (layers, input, last) =>
    layers.reduce((h, layer, i) => {
      const out = linear(layer, h);
      return i === layers.length - 1 && !last ? out : out.map((x) => Math.max(x, 0));
    }, input);
  const softmax = (logits) => {
    const top = Math.max(...logits), weights = logits.map((x) => Math.exp(x - top)), total = sum(weights);
    return weights.map((weight) => weight / total);
  };
  const decode = (layers, z) => {
    const logits = rectified(layers, z, false);
    return range(TRITS).map((j) => softmax([...logits.subarray(VALUES * j, VALUES * j + VALUES)]));
  };
  const encode = ({ body, mean }, trits) => linear(mean, rectified(body, trits, true));
  const layersOf = (text, shapes) => {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0)), numbers = new Float32Array(bytes.buffer);
    let at = 0;
    return shapes.map(([out, into]) => {
      const weight = numbers.subarray(at, at + out * into), bias = numbers.subarray(at + out * into, (at += out * (into + 1)));
      return { weight, bias };
    });
  };
  const byHand = (slope, offset) => (z) =>
    range(TRITS).map((j) => softmax([slope * (-z[j] - offset), 0, slope * (z[j] - offset)]));
  const offset = (slope) => {  // with which each value has mass 1/3 over the prior: bisection, a sum over 2,001 nodes
    const nodes = range(2001).map((i) => -8 + i / 125), density = nodes.map((z) => Math.exp((-z * z) / 2));
    const middle = (c) => sum(nodes.map((z, i) => density[i] * softmax([slope * (-z - c), 0, slope * (z - c)])[1])) / sum(density);
    let [low, high] = [-4, 4];
    for (let i = 0; i < 50; i++) middle((low + high) / 2) < 1 / 3 ? (low = (low + high) / 2) : (high = (low + high) / 2);
    return (low + high) / 2;
  };
  const likelihood = (p, trits) => trits.reduce((product, trit, j) => product * p[j][trit + 1], 1);
  const readings = (p) => ({
    argmax: p.map((of) => of.indexOf(Math.max(...of)) - 1),
    rounded: p.map((of) => Math.round(of[2] - of[0]) + 0),
  });

  // Coverage, of generators with -log(M p) normal over the operations: mean s^2/2, deviation s.
  const quantile = (u) => {  // of the standard normal, to 1e-9: Newton from a logistic start
    let x = Math.log(u / (1 - u)) / 1.702;
    for (let i = 0; i < 40; i++) {
      const step = (cumulative(x) - u) * Math.sqrt(2 * Math.PI) * Math.exp((x * x) / 2);
      x -= Math.max(-0.5, Math.min(0.5, step));
      if (Math.abs(step) < 1e-12) break;
    }
    return x;
  };
  const cumulative = (x) => {
    if (x > 0) return 1 - cumulative(-x);
    if (x > -3) {  // a series
      let term = x, total = x;
      for (let k = 1; Math.abs(term) > 1e-17; k++) total += (term *= (x * x) / (2 * k + 1));
      return 0.5 + (total * Math.exp((-x * x) / 2)) / Math.sqrt(2 * Math.PI);
    }
    let fraction = -x;  // a continued fraction
    for (let k = 40; k > 0; k--) fraction = -x + k / fraction;
    return Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI) / fraction;
  };
  const GRID = 400;
  const uneven = (s) => {
    const p = range(GRID).map((i) => Math.exp(s * quantile((i + 0.5) / GRID))), mean = sum(p) / GRID;
    return p.map((weight) => weight / mean / SIZE);
  };
  const expectedCoverage = (p, draws) => sum(p.map((x) => -Math.expm1(draws * Math.log1p(-x)))) / p.length;
  const uniformCoverage = (draws) => -Math.expm1(draws * Math.log1p(-1 / SIZE));
  const klUniform = (p) => -sum(p.map((x) => Math.log(x * SIZE))) / p.length;
  const nearlyFullCoverage = (p, draws) =>  // as if operations were missed independently
    Math.exp((SIZE / p.length) * sum(p.map((x) => Math.log1p(-Math.exp(draws * Math.log1p(-x))))));

  // Coupling (chapter 4).
  const noisePower = (rho, own, other) => ((1 - rho) * own) ** 2 + (rho * other) ** 2;
  const growthMatrix = (rho, tauA, tauB, betaA, betaB) => {
    const nuA = noisePower(rho, tauA, tauB), nuB = noisePower(rho, tauB, tauA);
    return [
      [(1 - rho) ** 2 / nuA - betaA, (rho * (1 - rho)) / nuA],
      [(rho * (1 - rho)) / nuB, (1 - rho) ** 2 / nuB - betaB],
    ];
  };
  const growthRate = (...given) => {
    const [[a, b], [c, d]] = growthMatrix(...given);
    return (a + d) / 2 + Math.sqrt(((a - d) / 2) ** 2 + b * c);
  };

  // Balance of gradients (chapter 6).
  const clamp = (x, low, high) => Math.max(low, Math.min(high, x));
  const balanceFactors = ([a, b], power) => {
    const ratio = a === 0 && b === 0 ? 1 : clamp(b / a, 1e-6, 1e6);
    return [clamp(ratio ** power, 0.5, 2), clamp(ratio ** -power, 0.5, 2)];
  };
  const averageNorms = (average, norms, alphas) => {
    if (!average) return norms;
    const ratio = average[1] / average[0], alpha = ratio > 0.8 && ratio < 1.2 ? alphas[1] : alphas[0];
    return norms.map((norm, i) => alpha * average[i] + (1 - alpha) * norm);
  };
  const balanceLoop = (raw, steps, { power, scaled, alphas }) => {  // the factors and the averages, step by step
    let average = null, factors = [1, 1];
    return range(steps).map(() => {
      const norms = scaled ? raw.map((norm, i) => norm * factors[i]) : raw;
      average = averageNorms(average, norms, alphas);
      factors = balanceFactors(average, power);
      return { average, factors, ratio: (raw[1] * factors[1]) / (raw[0] * factors[0]) };
    });
  };
  const expectedRepulsion = (sigma, latent, scale) => (1 + (2 * scale ** 2) / sigma ** 2) ** (-latent / 2);

  // One seed, one stream: mulberry32, and normal numbers by Box and Muller.
  const random = (seed) => () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  const normals = (uniform, count) =>
    range(count).map(() => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()));

  window.tvae = {
    TRITS, VALUES, SIZE, LATENT, range, sum, operationAt, indexOf, relabel, orbit, properties, named, linear, softmax, decode,
    encode, layersOf, byHand, offset, likelihood, readings, quantile, cumulative, uneven, expectedCoverage, uniformCoverage, klUniform,
    nearlyFullCoverage, noisePower, growthMatrix, growthRate, balanceFactors, averageNorms, balanceLoop, expectedRepulsion,
    random, normals,
  };
})();
