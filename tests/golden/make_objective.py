"""Golden loss and noise gradient of the authors' scheme (scope "all"), by PyTorch autograd.

    pip install torch && python tests/golden/make_objective.py

The surrogate is one strided convolution, a ReLU and a mean: enough to tell apart every mistake in
the loss. Inputs are drawn by `inputs`, which the test imports.
"""

from pathlib import Path

import numpy as np

CLUSTERS, IMAGES, SIZE, FEATURES = 3, 5, 8, 6


def inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "images": rng.uniform(size=(IMAGES, SIZE, SIZE, 3)).astype(np.float32),
        "noise": rng.uniform(-0.3, 0.3, size=(CLUSTERS, SIZE, SIZE, 3)).astype(np.float32),
        "kernel": rng.normal(size=(3, 3, 3, FEATURES)).astype(np.float32),
        "centers": rng.normal(size=(CLUSTERS, FEATURES)).astype(np.float32),
    }


def main() -> None:
    import torch
    from torch.nn import functional as F

    values = {k: torch.tensor(v) for k, v in inputs().items()}
    weight = values["kernel"].permute(3, 2, 0, 1)
    noise = values["noise"].requires_grad_()
    losses = []
    for i in range(CLUSTERS):
        images = (values["images"] + noise[i]).clamp(0, 1).permute(0, 3, 1, 2)
        features = F.relu(F.conv2d(images, weight, stride=2)).mean((2, 3))
        center = values["centers"][(i + 1) % CLUSTERS].expand_as(features)
        divergence = F.kl_div(
            F.log_softmax(features, -1), F.softmax(center, -1), reduction="batchmean"
        )
        losses.append(divergence)
    torch.stack(losses).sum().backward()
    np.savez(
        Path(__file__).with_name("objective.npz"),
        losses=torch.stack(losses).detach().numpy(),
        gradient=noise.grad.numpy(),
    )


if __name__ == "__main__":
    main()
