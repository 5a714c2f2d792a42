"""What comes back: the operations that a decoder reconstructs from codes, exactly or trit by trit, and the distortion.

Reading is by argmax, from posterior means or from sampled codes, own or injected."""

import torch
from torch import Tensor, nn

from tvae_lib.measures.generation import likeliest, mean_and_error
from tvae_lib.operations import SIZE, TRITS, VALUES, all_operations, index_of, one_hot
from tvae_lib.system.dual import DualVAE, cross_inject
from tvae_lib.system.vae import Posterior, log_likelihood, reparameterise
from tvae_lib.training import recording
from tvae_lib.training.threads import Team, allowed


@torch.no_grad()
def expected_log_likelihood(decoder: nn.Module, posterior: Posterior, samples: int, generator) -> tuple[Tensor, Tensor]:
    """E_q log p(x|z) of every operation, from `samples` codes of each posterior, with standard errors: (M,), (M,).

    `posterior` (M, d) is that of the codes the decoder reads; in nats; `samples` at least 2.
    Equation: eq-distortion. Source: ours."""
    indicators = one_hot(all_operations().to(generator.device))

    def sampled() -> Tensor:
        noise = torch.randn(posterior.mean.shape, generator=generator, device=generator.device)
        return log_likelihood(decoder(reparameterise(posterior, noise)), indicators).double()

    return mean_and_error(sampled() for _ in range(samples))


def distortion(decoder: nn.Module, posterior: Posterior, samples: int, generator) -> tuple[float, float]:
    """D, minus the mean of `expected_log_likelihood` over all operations, and its standard error, in nats."""
    log_likelihood, errors = expected_log_likelihood(decoder, posterior, samples, generator)
    return -log_likelihood.mean().item(), errors.square().sum().sqrt().item() / SIZE


@torch.no_grad()
def decode(decoder: nn.Module, z: Tensor) -> Tensor:
    """The operation that a decoder makes of each code by argmax: (n, d) -> (n,) index."""
    logits = in_fused_passes(decoder, z, -1)
    if logits is not None:
        return likeliest(logits.unflatten(-1, (TRITS, VALUES)).movedim(0, -1))
    return torch.cat([likeliest(decoder(part).movedim(0, -1)) for part in z.split(2048)])


def in_fused_passes(network: nn.Module, inputs: Tensor, layer: int) -> Tensor | None:
    """What a layer of an encoder or a decoder puts out, parts of the inputs on every thread; None where it cannot."""
    fused = recording.fused("decoding") if inputs.device.type == "cpu" and inputs.dtype == torch.float32 else None
    known = fused.known(network) if fused else None
    if fused is None or known is None:
        return None
    widths = known[1][0]
    layer, out = layer % len(widths), inputs.new_empty((len(inputs), int(widths[layer])))
    parts = zip(inputs.contiguous().split(2048), out.split(2048), strict=True)
    Team([allowed()]).run([(fused.outputs, (known, x, layer, place)) for x, place in parts])
    return out


@torch.no_grad()
def means(encoder: nn.Module, trits: Tensor) -> Tensor:
    """The posterior means of operations, trits (n, 9) as floats -> (n, d)."""
    found = in_fused_passes(encoder, trits, -2)  # the last layer but one
    return encoder(trits).mean if found is None else found


def is_exact(decoder: nn.Module, z: Tensor) -> Tensor:
    """Which operations come back exactly from codes z (M, d), one for each operation in order: (M,) bool."""
    return decode(decoder, z) == torch.arange(SIZE, device=z.device)


@torch.no_grad()
def means_read(model: DualVAE, trits: Tensor, rho: Tensor | float) -> dict[str, tuple[Tensor, Tensor]]:
    """The posterior means as decoders A and B may read them: trits (n, 9) as floats -> (n, d) for each of the two.

    `alone`: each its own; `coupled`: the injected ones, at permeability rho."""
    A, B = (means(vae.encoder, trits) for vae in (model.A, model.B))
    return {"alone": (A, B), "coupled": (cross_inject(A, B, rho), cross_inject(B, A, rho))}


def exact_shares(model: DualVAE, trits: Tensor, rho: Tensor | float) -> dict[str, float | None]:
    """Fraction of operations that come back exactly by argmax from `means_read`: {"alone_A": ...}; None where n = 0."""
    index = index_of(trits)
    return {
        f"{kind}_{name}": (decode(vae.decoder, z) == index).double().mean().item() if len(trits) else None
        for kind, of_both in means_read(model, trits, rho).items()
        for name, vae, z in zip("AB", (model.A, model.B), of_both, strict=True)
    }


@torch.no_grad()
def trit_accuracy(model: DualVAE, trits: Tensor, rho: Tensor | float) -> Tensor:
    """Share of operations, trits (n, 9) as floats, whose trit j comes back by argmax from the injected means: (2, 9).

    Rows are A and B. Equation: eq-trit-accuracy. Source: ours."""
    given = zip((model.A, model.B), means_read(model, trits, rho)["coupled"], strict=True)
    return torch.stack([(vae.decoder(z).argmax(-1) - 1 == trits).double().mean(0) for vae, z in given])


@torch.no_grad()
def sampled_reconstruction(
    decoder: nn.Module, posterior: Posterior, samples: int, generator, chosen: Tensor | None = None
) -> tuple[float, float]:
    """Fraction of operations that come back by argmax from codes drawn of their posteriors, and its standard error.

    The posteriors (n, d) are those of the `chosen` operations, indices (n,), or of all; `samples` codes of each, at
    least 2."""
    index = torch.arange(SIZE, device=generator.device) if chosen is None else chosen

    def sampled() -> Tensor:
        noise = torch.randn(posterior.mean.shape, generator=generator, device=generator.device)
        return (decode(decoder, reparameterise(posterior, noise)) == index).double().mean()

    share, error = mean_and_error(sampled() for _ in range(samples))
    return share.item(), error.item()
