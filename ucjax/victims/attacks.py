"""What an exploiter may learn from all training pictures at once, to be rid of noise by groups.

Noise that is one for many pictures is known to whoever groups them: it stands out of the groups'
mean spectra, is their mean, or lies in the few directions in which classes are linearly apart.
The groups are the exploiter's own: k-means of what stands out of each picture's spectrum.
Or a clean picture leaks beside its protected one: their difference is the noise of a whole group.
"""

from __future__ import annotations

import jax
import numpy as np
from PIL import Image, ImageOps
from scipy import ndimage

from ucjax.clusters import kmeans
from ucjax.runtime import parallel
from ucjax.victims.contract import Change, Pictures

_SIDE = 256  # pixels of the squares whose spectra are looked at
_LARGEST = 512  # pixels of the squares whose means are taken
_POOLED = 4  # frequencies along each axis of which the strongest counts
# Luma and two differences of colours, so that a cue without luminance stands out as well.
_OPPONENT = np.array([(0.299, 0.587, 0.114), (0.5, -0.5, 0.0), (-0.25, -0.25, 0.5)], np.float32)
_LOWEST = 6.0  # cycles a short side, below which pictures have their content
_PEAKS, _WIDTH = 8, 1.5  # removed in a group; cycles a short side around each
_STANDS_OUT = 4.0  # standard deviations
_EPOCHS, _BATCH, _RATE = 20, 256, 0.1
# Share of a leaked noise that a picture must have for it to be taken off: those of other groups
# have none of it, on average, and their own group all.
_HAS = 0.5


def notch(pictures: Pictures, labels: np.ndarray, groups: int | None) -> Change:
    """Removes from each picture the frequencies in which its group's mean spectrum has peaks.

    Up to eight frequencies of more than six cycles a short side are removed, in all channels.
    """
    del labels
    assert groups is not None
    squares = _squares(pictures, _SIDE)
    spectra, centers, group = _grouped(squares, groups)
    peaks = [_peaks(spectra[group == g].mean(0) - spectra.mean(0)) for g in range(groups)]

    def change(picture: Image.Image) -> Image.Image:
        return _without(picture, peaks[_group_of(picture, centers)])

    return change


def cluster_mean(pictures: Pictures, labels: np.ndarray, groups: int | None) -> Change:
    """Subtracts from each picture how its group's mean differs from the mean of all.

    The means are those of the centre squares, at the size of the first of them.
    """
    del labels
    assert groups is not None
    squares = _squares(pictures, min(*pictures[0]().size, _LARGEST))
    _, centers, group = _grouped(squares, groups)
    mean = squares.mean(0, dtype=np.float32)
    excess = [squares[group == g].mean(0, dtype=np.float32) - mean for g in range(groups)]
    return lambda picture: _subtracted(picture, excess[_group_of(picture, centers)])


def orthogonal(pictures: Pictures, labels: np.ndarray, side: int | None) -> Change:
    """Projects out of each picture the directions in which the classes are linearly apart.

    Source: Sandoval-Segura et al., arXiv:2305.19254. Their linear model sees whole pictures of
    one size; this one the centre squares at `side` pixels. The result has 8 bits, so that what
    leaves the range of the pixels is clipped.
    """
    assert side is not None
    squares = _squares(pictures, side)
    basis, _ = np.linalg.qr(_linear_model(squares.reshape(len(squares), -1), labels))

    def change(picture: Image.Image) -> Image.Image:
        flat = _square(picture, side).astype(np.float32).ravel()
        return _subtracted(picture, (basis @ (basis.T @ flat)).reshape(side, side, 3))

    return change


def pair_leak(pictures: Pictures, clean: Pictures, pairs: int | None) -> Change:
    """Subtracts from each picture that of N leaked noises which it has.

    N pictures, drawn at random, are known in their clean form as well, as where an owner has
    published one before. Which of the N differences a picture has, if any, is told by a matched
    filter: photographs have differences of neighbouring pixels that are nearly white.
    """
    assert pairs is not None
    side = min(*pictures[0]().size, _LARGEST)
    known = np.random.default_rng(0).permutation(len(pictures))[:pairs]
    before, after = (_squares([x[i] for i in known], side) for x in (clean, pictures))
    noises = after.astype(np.float32) - before
    noises = noises[np.square(noises).sum((1, 2, 3)) > 0]
    filters = np.stack([_differences(noise) for noise in noises]) if len(noises) else np.zeros((0,))
    energy = np.maximum(np.square(filters).sum(-1), np.finfo(np.float32).tiny)

    def change(picture: Image.Image) -> Image.Image:
        if not len(noises):
            return picture
        square = _square(picture, side).astype(np.float32)
        has = filters @ _differences(square) / energy
        best = int(np.argmax(has))
        return _subtracted(picture, noises[best]) if has[best] > _HAS else picture

    return change


def _differences(square: np.ndarray) -> np.ndarray:
    """Returns the differences of pixels beside and below one another, flat."""
    return np.concatenate([np.diff(square, axis=axis).ravel() for axis in (0, 1)])


def _square(picture: Image.Image, side: int) -> np.ndarray:
    """Returns the centre square at this side: uint8 `[side, side, 3]`."""
    return np.asarray(ImageOps.fit(picture, (side, side), Image.Resampling.BILINEAR))


def _squares(pictures: Pictures, side: int) -> np.ndarray:
    squares = np.empty((len(pictures), side, side, 3), np.uint8)
    for square, open_ in zip(squares, pictures, strict=True):
        square[:] = _square(open_(), side)
    return squares


def _spectrum(square: np.ndarray) -> np.ndarray:
    """Returns the logarithm of the power of each frequency: float32 `[side, side / 2, 3]`."""
    window = np.hanning(len(square))[:, None, None] * np.hanning(len(square))[None, :, None]
    channels = square @ _OPPONENT.T
    waves = np.fft.rfft2((channels - channels.mean((0, 1))) * window, axes=(0, 1))
    return np.log(np.abs(waves[:, : len(square) // 2]) ** 2 + 1).astype(np.float32)


def _standing_out(spectrum: np.ndarray) -> np.ndarray:
    """Returns by how much frequencies exceed those around them, pooled and flat."""
    height, width, channels = spectrum.shape
    pooled = spectrum.reshape(height // _POOLED, _POOLED, width // _POOLED, _POOLED, channels)
    pooled = pooled.max((1, 3))
    around = ndimage.uniform_filter(pooled, (5, 5, 1), mode=("wrap", "nearest", "nearest"))
    return (pooled - around).ravel()


def _grouped(squares: np.ndarray, groups: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the spectra `[n, ...]`, the groups' centres, and the group of each picture."""
    pictures = [Image.fromarray(square) for square in squares]
    spectra = np.stack([_spectrum(_square(picture, _SIDE)) for picture in pictures])
    rows = np.stack([_standing_out(spectrum) for spectrum in spectra])
    mesh = parallel.make_mesh(jax.local_devices()[:1])
    found = kmeans.fit(rows, groups, seed=0, mesh=mesh)
    return spectra, found.centers, found.assignment


def _group_of(picture: Image.Image, centers: np.ndarray) -> int:
    row = _standing_out(_spectrum(_square(picture, _SIDE)))
    return int(np.argmin(np.square(centers - row).sum(1)))


def _peaks(excess: np.ndarray) -> np.ndarray:
    """Returns the frequencies that stand out, in cycles a short side: `[peaks, 2]`."""
    height, width, _ = excess.shape
    down, across = np.meshgrid(np.fft.fftfreq(height) * height, np.arange(width), indexing="ij")
    strength = np.where(np.hypot(down, across) >= _LOWEST, excess.max(-1), -np.inf)
    seen = strength[np.isfinite(strength)]
    least, found = seen.mean() + _STANDS_OUT * seen.std(), list[tuple[float, float]]()
    while len(found) < _PEAKS and strength.max() > least:
        i = np.unravel_index(np.argmax(strength), strength.shape)
        found.append((float(down[i]), float(across[i])))
        near = np.hypot(down - down[i], across - across[i]) <= _WIDTH
        strength = np.where(near, -np.inf, strength)
    return np.array(found, np.float64).reshape(-1, 2)


def _without(picture: Image.Image, peaks: np.ndarray) -> Image.Image:
    """Sets the frequencies around the peaks to 0."""
    pixels = np.asarray(picture, np.float32)
    height, width = pixels.shape[:2]
    short = min(height, width)
    waves = np.fft.rfft2(pixels, axes=(0, 1))
    down, across = np.fft.fftfreq(height)[:, None] * short, np.fft.rfftfreq(width)[None] * short
    for y, x in [*peaks, *-peaks]:
        waves[np.hypot(down - y, across - x) <= _WIDTH] = 0
    return _picture(np.fft.irfft2(waves, (height, width), axes=(0, 1)))


def _subtracted(picture: Image.Image, excess: np.ndarray) -> Image.Image:
    """Subtracts float32 `[side, side, 3]`, resized to the centre square, from a picture."""
    pixels = np.array(picture, np.float32)
    side = min(picture.size)
    top, left = (round((length - side) / 2) for length in pixels.shape[:2])
    channels = [
        Image.fromarray(channel).resize((side, side), Image.Resampling.BILINEAR)
        for channel in np.moveaxis(excess, 2, 0)
    ]
    pixels[top : top + side, left : left + side] -= np.stack([np.asarray(c) for c in channels], 2)
    return _picture(pixels)


def _picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(pixels.clip(0, 255)).astype(np.uint8))


def _linear_model(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Fits a softmax of uint8 rows `[n, d]` without bias by SGD; columns of length 1 `[d, c]`."""
    classes, found = np.unique(labels, return_inverse=True)
    weights = np.zeros((rows.shape[1], len(classes)), np.float32)
    rng = np.random.default_rng(0)
    for epoch in range(_EPOCHS):
        # The published rate is for 3,072 numbers a picture.
        drop = 10.0 ** -((epoch >= _EPOCHS // 2) + (epoch >= 3 * _EPOCHS // 4))
        rate = np.float32(_RATE * drop * min(3072 / rows.shape[1], 1))
        for batch in np.array_split(rng.permutation(len(rows)), -(-len(rows) // _BATCH)):
            pixels = rows[batch].astype(np.float32) / 255
            logits = pixels @ weights
            likely = np.exp(logits - logits.max(1, keepdims=True))
            wrong = likely / likely.sum(1, keepdims=True) - np.eye(len(classes))[found[batch]]
            weights -= rate / len(batch) * (pixels.T @ wrong.astype(np.float32))
    return weights / np.maximum(np.linalg.norm(weights, axis=0), 1e-12)
