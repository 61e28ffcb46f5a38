"""Unlearnable Clusters on Oxford-IIIT Pets: the paper's main experiment.

    python -m ucjax.main --config=configs/pets.py              CLIP ViT-B/32 as surrogate
    python -m ucjax.main --config=configs/pets.py:clip_rn50    the paper's UC-CLIP
    python -m ucjax.main --config=configs/pets.py:rn50         the paper's UC

Data: TFDS `oxford_iiit_pet`, 3,680 images to protect, 3,669 clean test images, 37 classes.
Weights: a Hugging Face id, fetched on first use, or a local folder (`--config.surrogate.path=`).
Hardware and time: meant for one GPU or TPU; not run by us yet, since neither the data nor the
weights can be had where ucjax is developed.
Expected: an independent rerun of the authors' code (arXiv:2412.21061) found, for ResNet-18 from
scratch, clean 49.56 ± 0.81, UC 20.91 ± 1.17 and UC-CLIP 24.07 ± 4.92 % clean test accuracy.

Every key may be overridden: `--config.noise.epochs=10 --config.victim.seeds="(0,1,2,3,4)"`.
"""

from ml_collections import ConfigDict

SURROGATES = {
    "clip": "openai/clip-vit-base-patch32",
    "clip_rn50": "timm/resnet50_clip.openai",
    "rn50": "microsoft/resnet-50",
}


def get_config(surrogate: str = "clip") -> ConfigDict:
    """Returns the experiment with one of `SURROGATES`."""
    if surrogate not in SURROGATES:
        raise ValueError(f"configs/pets.py:{surrogate}: choose one of {', '.join(SURROGATES)}")
    c = ConfigDict()
    c.seed = 0  # of the split, k-means, noise and controls; victims have their own
    c.expected_time = "not measured; made for one GPU or more"

    c.data = d = ConfigDict()
    d.source = "tfds"  # "folder" | "tfds" | "textures" (synthetic, offline)
    d.name = "oxford_iiit_pet"  # TFDS: which set
    d.root = ""  # folder: your photos; TFDS: data_dir, empty for its default
    d.test_fraction = 0.2  # folder without train/ and test/: share kept as the clean test set
    d.train_count = 0  # textures: images to protect
    d.test_count = 0  # textures: clean test images
    d.short_side = 256  # pixels; images are decoded once to this size
    d.crop = 224  # pixels; the side of the noise, of the surrogate's input and of "crop" files
    d.cache = ""  # folder of decoded images, empty for $UCJAX_CACHE or ~/.cache/ucjax

    c.surrogate = s = ConfigDict()
    s.name = surrogate  # "clip" | "clip_rn50" | "rn50" | "efficientnet_lite0"
    s.path = SURROGATES[surrogate]  # local folder or file, or Hugging Face id
    s.batch_size = 256  # images a step when features are computed

    c.clusters = k = ConfigDict()
    k.k = 10  # p in the paper
    k.n_init = 10  # restarts, the best is kept
    k.max_iterations = 300
    k.tolerance = 1e-4  # of the centres' shift, relative to the features' variance

    c.noise = n = ConfigDict()
    n.scope = "cluster"  # "cluster": the paper's sum; "all": every image for every noise (code)
    n.distance = "kl"  # "kl" | "cosine" | "l2"
    n.bound = "tanh"  # "tanh": eps * tanh; "clamp": as published, no gradient past eps
    n.target = "offset"  # "offset": i + 1 mod p | "farthest" | "permuted"
    n.parametrisation = "generator"  # "generator" | "direct": the pixels themselves
    n.norm = "linf"  # "linf" | "l2": root mean square
    n.epsilon_255 = 16  # the budget, in levels of 8-bit pixels
    n.epochs = 50
    n.batch_size = 256  # over all devices
    n.learning_rate = 1e-4
    n.final_learning_rate = 1e-6  # cosine per step
    n.weight_decay = 5e-4  # L2, as torch's Adam
    n.width = 64  # channels of the generator's first layer
    n.blocks = 6  # its residual blocks
    n.flip = True

    c.protect = p = ConfigDict()
    p.geometry = "crop"  # "crop": centre crops, as published | "native": whole files

    c.victim = v = ConfigDict()
    v.model = "resnet18"
    v.width = 64  # channels of the first stage; 64 is torchvision's
    v.epochs = 90
    v.batch_size = 512  # over all devices
    v.learning_rate = 0.1  # SGD, cosine to 0
    v.momentum = 0.9
    v.weight_decay = 5e-4
    v.short_side = 256  # files are resized to this, as the published victims do, then cropped
    v.crop = 224
    v.mean = (0.5, 0.5, 0.5)  # subtracted from pixels in [0, 1]
    v.std = (0.5, 0.5, 0.5)
    v.flip = True
    v.arms = ("clean", "random", "cluster_random", "protected")
    v.seeds = (0, 1, 2)

    # Images live on the devices if this many MB a device hold them, else they are streamed;
    # 0 decides from the free memory.
    c.feed_budget_mb = 0
    return c.lock()
