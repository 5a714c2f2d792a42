"""The system of the preset `document` in JAX, as a user of JAX would write it: a peer for the benchmarks.

usage: python benchmarks/peer_jax.py [--batch N]

It needs jax and numpy only, for it runs in an environment of its own. It compiles, trains one epoch and prints a line
of JSON, {"ready": true, "jax": version, "compile_seconds": s, "seconds": s, "loss": mean loss}; for each line on
standard input it trains one more epoch and prints {"seconds": s, "loss": mean loss}; it ends with its input.

The equations and sizes are the library's, losses straight from their formulas. But every epoch gets what epoch 2 of 400
is prescribed, and StateNet, one small step an epoch, is left out. An epoch is a scan, faster than a call a step."""

import argparse
import json
import math
import sys
import time
from functools import partial
from itertools import chain, pairwise, product

import jax
import jax.numpy as jnp
import numpy as np

OPERATIONS = np.array(list(product((-1, 0, 1), repeat=9)), dtype=np.float32)
LAMBDAS, ALPHA_ENT, ALPHA_REP, SIGMA_REP = (0.7, 0.7, 0.3), 0.05, 0.01, 0.5
LATENT, REACH, BINS, BIN_WIDTH = 16, 3, 50, 0.12
LR, WEIGHT_DECAY, BETA_1, BETA_2, EPSILON = 1e-3, 1e-4, 0.9, 0.999, 1e-8
# rho, tau_A, tau_B, beta_A and beta_B of epoch 2 of 400
CONTROLS = (0.1, 0.9965 * (1 - 0.1 * math.sin(math.pi * 2 / 15)), 0.949, 0.602, 0.602 / math.sqrt(2))


def layers(rng, *widths):
    """Weights (in, out) and biases (out,) of linear layers, all uniform within 1 / sqrt(in)."""
    return [tuple(jnp.float32(rng.uniform(-1, 1, s) / i**0.5) for s in ((i, o), (o,))) for i, o in pairwise(widths)]


def perceptron(layers, h):
    *hidden, (weight, bias) = layers
    for w, b in hidden:
        h = jax.nn.relu(h @ w + b)
    return h @ weight + bias


def residual(layers, h):
    """Decoder B: a layer, two residual blocks, of which the first ends in a ReLU, and the output."""
    h = jax.nn.relu(perceptron(layers[:1], h))
    h = jax.nn.relu(h + perceptron(layers[1:3], h))
    return perceptron(layers[5:], h + perceptron(layers[3:5], h))


def elbo_parts(logits, indicators, mean, log_variance):
    """Cross-entropy and KL of a pathway, means over the batch."""
    cross_entropy = (jax.nn.logsumexp(logits, axis=-1).sum() - (logits * indicators).sum()) / len(logits)
    return cross_entropy, -0.5 * (1 + log_variance - mean**2 - jnp.exp(log_variance)).sum(1).mean()


def repulsion(z):
    squares = (z**2).sum(1)
    return jnp.exp(-(squares[:, None] + squares - 2 * z @ z.T) / (2 * SIGMA_REP**2)).mean()


def entropy(z):
    bins = jnp.floor((jax.lax.stop_gradient(z) + REACH) / BIN_WIDTH)
    inside, columns = (bins >= 0) & (bins < BINS), jnp.arange(z.shape[1])
    places = jnp.clip(bins, 0, BINS - 1).astype(int)
    counts = jnp.zeros((z.shape[1], BINS)).at[columns, places].add(inside)
    p = counts / counts.sum(1, keepdims=True)
    return -(p * jnp.log(p / BIN_WIDTH + 1e-20)).sum()


def loss_of(parameters, x, noise, controls, weights):
    """<weights, terms> and its log, on x (N, 9), trits as floats, and standard normal noise (2, N, d).

    Terms: CE and KL of A, those of B, minus output entropy, repulsion, alignment. `controls` are like `CONTROLS`."""
    A, B, (rho, tau_A, tau_B, _, _) = parameters["A"], parameters["B"], controls
    (mu_A, log_A), (mu_B, log_B) = (jnp.split(perceptron(p["encoder"], x), 2, axis=1) for p in (A, B))
    z_A = mu_A + tau_A * jnp.exp(0.5 * log_A) * noise[0]
    z_B = mu_B + tau_B * jnp.exp(0.5 * log_B) * noise[1]
    logits_A = perceptron(A["decoder"], (1 - rho) * z_A + rho * jax.lax.stop_gradient(z_B)).reshape(-1, 9, 3)
    logits_B = residual(B["decoder"], (1 - rho) * z_B + rho * jax.lax.stop_gradient(z_A)).reshape(-1, 9, 3)
    indicators, entropies = x[..., None] == jnp.arange(-1, 2), (entropy(z_A), entropy(z_B))
    mean = jax.nn.softmax(logits_B).mean(0)
    terms = [*elbo_parts(logits_A, indicators, mu_A, log_A), *elbo_parts(logits_B, indicators, mu_B, log_B)]
    terms += [(mean * jnp.log(mean + 1e-20)).sum(), repulsion(z_B), abs(entropies[0] - entropies[1])]
    loss = weights @ jnp.stack(terms)
    return loss, {"loss": loss, "terms": jnp.stack(terms), "entropies": jnp.stack(entropies)}


def adamw(p, gradient, m, v, step):
    """Parameters and both moments after step number `step`, counted from 1."""
    scale_1, scale_2 = 1 / (1 - BETA_1**step), 1 / (1 - BETA_2**step)
    m = jax.tree.map(lambda m, g: BETA_1 * m + (1 - BETA_1) * g, m, gradient)
    v = jax.tree.map(lambda v, g: BETA_2 * v + (1 - BETA_2) * g**2, v, gradient)
    update = jax.tree.map(lambda m, v: scale_1 * m / (jnp.sqrt(scale_2 * v) + EPSILON), m, v)
    return jax.tree.map(lambda p, u: p - LR * (u + WEIGHT_DECAY * p), p, update), m, v


def step_of(state, x, noise, controls):
    """The state after a step of training, and its log."""
    (parameters, m, v, step, average), (beta_A, beta_B) = state, controls[3:]
    ratio = jnp.where(step == 0, 1, average[1] / average[0])
    a, b = LAMBDAS[0] * jnp.clip(ratio, 0.5, 2), LAMBDAS[1] * jnp.clip(1 / ratio, 0.5, 2)
    weights = jnp.stack([a, a * beta_A, b, b * beta_B, b * ALPHA_ENT, b * ALPHA_REP, LAMBDAS[2]])
    (_, log), gradient = jax.value_and_grad(loss_of, has_aux=True)(parameters, x, noise, controls, weights)
    norms = jnp.stack([jnp.sqrt(sum((g**2).sum() for g in jax.tree.leaves(gradient[name]))) for name in "AB"])
    alpha = jnp.where((ratio > 0.8) & (ratio < 1.2), 0.95, 0.9)
    average = jnp.where(step == 0, norms, alpha * average + (1 - alpha) * norms)
    state = *adamw(parameters, gradient, m, v, step + 1), step + 1, average
    return state, log | {"weights": weights, "norms": norms}


@partial(jax.jit, donate_argnums=0)
def epoch(state, order, key, controls):
    """The state after an epoch, and the mean of its log; `order` holds each step's operations, (steps, N)."""

    def body(state, chosen):
        noise = jax.random.normal(jax.random.fold_in(key, state[3]), (2, len(chosen), LATENT))
        return step_of(state, jnp.asarray(OPERATIONS)[chosen], noise, controls)

    state, logs = jax.lax.scan(body, state, order, unroll=3)  # a twentieth faster than without unroll
    return state, jax.tree.map(lambda values: values.mean(0), logs)


def start(rng):
    """Parameters, moments, number of steps and averaged gradient norms before the first step."""
    decoders = {"A": layers(rng, LATENT, 32, 64, 27), "B": layers(rng, LATENT, *[128] * 5, 27)}
    encoders = {name: layers(rng, 9, 256, 128, 64, 2 * LATENT) for name in "AB"}
    parameters = {name: {"encoder": encoders[name], "decoder": decoders[name]} for name in "AB"}
    m, v = (jax.tree.map(jnp.zeros_like, parameters) for _ in range(2))
    return parameters, m, v, jnp.int32(0), jnp.zeros(2)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=512)
    batch = parser.parse_args().batch
    shape, rng, key = (-(-len(OPERATIONS) // batch), batch), np.random.default_rng(0), jax.random.key(0)
    state, started = start(rng), time.perf_counter()
    take = epoch.lower(state, np.zeros(shape, int), key, CONTROLS).compile()
    line = {"ready": True, "jax": jax.__version__, "compile_seconds": time.perf_counter() - started}
    for _ in chain([""], sys.stdin):
        started = time.perf_counter()
        order = np.resize(rng.permutation(len(OPERATIONS)), shape)  # wrapped to whole batches
        state, log = jax.block_until_ready(take(state, order, key, CONTROLS))
        line |= {"seconds": time.perf_counter() - started, "loss": float(log["loss"])}
        print(json.dumps(line), flush=True)
        line = {}


if __name__ == "__main__":
    main()
