"""`info_nce_loss` in a plain torch loop: two small networks learn that two noisy views show the same thing.

    python examples/kernels_in_a_plain_loop.py

takes seconds on a CPU. On a GPU the same line runs the Triton kernels. Nothing of alignx_fast is needed, only alignx_kernels.
"""

import torch
from alignx_kernels import info_nce_loss
from torch import nn

PAIRS, HIDDEN, WIDTH, STEPS = 1024, 16, 32, 100


def main() -> tuple[float, float]:
    """Train; returns how often a view finds its partner among 1,024, before and after."""
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images, captions = nn.Linear(64, WIDTH, device=device), nn.Linear(48, WIDTH, device=device)
    image_view = torch.randn(HIDDEN, 64, device=device)
    caption_view = torch.randn(HIDDEN, 48, device=device)
    log_temperature = nn.Parameter(torch.tensor(-2.0, device=device))
    optimizer = torch.optim.AdamW([*images.parameters(), *captions.parameters(), log_temperature], lr=1e-2)

    def pairs() -> tuple[torch.Tensor, torch.Tensor]:
        things_NH = torch.randn(PAIRS, HIDDEN, device=device)
        left, right = things_NH @ image_view, things_NH @ caption_view
        return left + torch.randn_like(left), right + torch.randn_like(right)

    @torch.no_grad()
    def accuracy() -> float:
        left, right = pairs()
        cosine_NN = nn.functional.normalize(images(left), dim=-1) @ nn.functional.normalize(captions(right), dim=-1).T
        return (cosine_NN.argmax(1) == torch.arange(PAIRS, device=device)).float().mean().item()

    before = accuracy()
    for step in range(STEPS):
        left, right = pairs()
        loss = info_nce_loss(images(left), captions(right), temperature=log_temperature.exp(), symmetric=True)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            print(f"step {step:3}: loss {loss.item():.3f}, temperature {log_temperature.exp().item():.3f}")
    after = accuracy()
    print(f"A view finds its partner among {PAIRS:,}: {before:.1%} before, {after:.1%} after.")
    return before, after


if __name__ == "__main__":
    main()
