import torch

from studies.single import SingleStep, train_single
from tvae_lib.system.losses import cross_entropy
from tvae_lib.system.vae import VAE, DecoderA, kl_to_prior
from tvae_lib.training.config import make_config
from tvae_lib.training.state import load, prescribe
from tvae_lib.training.trainer import Trainer

CONFIG = make_config(preset="bare", total_epochs=2, holdout=0.9, batch_size=256, beta_start=0.3, device="cpu")


def test_a_lone_vae_trains_like_a_loop_with_torchs_adamw():
    torch.manual_seed(0)
    vae = VAE(DecoderA())
    before = [p.detach().clone() for p in vae.parameters()]
    trained = train_single(vae, CONFIG)
    assert all(torch.equal(a, b) for a, b in zip(vae.parameters(), before, strict=True)), "the argument was trained"

    optimiser = torch.optim.AdamW(vae.parameters(), weight_decay=CONFIG.weight_decay)
    for epoch in range(2):
        controls = prescribe(CONFIG, epoch)
        optimiser.param_groups[0]["lr"] = CONFIG.lr * controls.lr_factor
        for (trits, indicators), noise in Trainer(CONFIG, "cpu").batches(epoch):
            posterior, logits = vae(trits, noise[0], controls.tau_A)
            loss = cross_entropy(logits, indicators) + controls.beta_A * kl_to_prior(posterior).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    for ours, theirs in zip(trained.parameters(), vae.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_the_same_seed_gives_the_same_bits():
    torch.manual_seed(0)
    vae = load(VAE(DecoderA()), SingleStep(VAE(DecoderA()), 0.0).initial()[0])
    first, second = (train_single(vae, CONFIG).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
