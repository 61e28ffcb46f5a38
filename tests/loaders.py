"""Finished folders to export, and the loaders of other ecosystems, each as its users call it."""

import hashlib
import io
import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pictures import publish, settings
from PIL import Image

from ucjax.data.images import build, file_item
from ucjax.files import protect as protection
from ucjax.files.manifest import read_manifest

CLASSES = ("big cats", "Hündchen")
NAMES = ("big cats/a.jpg", "big cats/a.png", "Hündchen/a.png", "Hündchen/two words.v2.bmp", "0.png")
LABELS = (0, 0, 1, 1, -1)
SIZES = ((32, 41), (33, 35), (50, 33), (36, 36), (34, 60))


class Row(NamedTuple):
    name: str
    data: bytes
    pixels: np.ndarray
    label: int | None = None
    class_name: str | None = None


def protect(folder: Path, names=NAMES, labels=LABELS, class_names=CLASSES) -> Path:
    photos = folder / "photos"
    publish(photos, names, SIZES[: len(names)])
    items = [file_item(photos / n, n, label) for n, label in zip(names, labels, strict=True)]
    images = build(
        items, short_side=32, cache_dir=folder / "cache", label="x", class_names=class_names
    )
    changes = {"noise_of": lambda i: np.full((28, 28, 3), 8 / 255, np.float32), "clusters": None}
    protection.protect_images(images, root=photos, **settings(folder / "out", **changes))
    return folder / "out"


def reencode(out: Path, suffix: str) -> None:
    """Publishes the same pictures in another format."""
    records = read_manifest(out)
    for record in records:
        path = out / "images" / record["output"]
        with Image.open(path) as image:
            image.save(path.with_suffix(suffix), lossless=True, quality=95)
        path.unlink()
        record["output"] = str(Path(record["output"]).with_suffix(suffix))
        data = path.with_suffix(suffix).read_bytes()
        record["output_sha256"] = hashlib.sha256(data).hexdigest()
    write_manifest(out, records)


def write_manifest(out: Path, records) -> None:
    (out / "manifest.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def decode(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def expected(out: Path) -> list[Row]:
    class_names = json.loads((out / "summary.json").read_text())["class_names"]
    rows = []
    for record in read_manifest(out):
        data = (out / "images" / record["output"]).read_bytes()
        known = record["class"]
        label = -1 if known is None else class_names.index(known)
        rows.append(Row(record["output"], data, decode(data), label, known))
    return rows


# The loaders, each as its users call it


def read_hf(folder: Path, tmp_path: Path, *source: str) -> list[Row]:
    import datasets

    files = {"data_files": str(folder / "data" / "*.parquet")} if source else {}
    loaded = datasets.load_dataset(
        *(source or [str(folder)]), split="train", cache_dir=str(tmp_path / "hf"), **files
    )
    raw = loaded.cast_column("image", datasets.Image(decode=False))
    names = loaded.features["label"].names if "label" in loaded.features else None
    return [
        Row(
            stored["image"]["path"],
            stored["image"]["bytes"],
            np.asarray(decoded["image"]),
            *_label(decoded.get("label"), names),
        )
        for stored, decoded in zip(raw, loaded, strict=True)
    ]


def read_tfds(folder: Path, tmp_path: Path) -> list[Row]:
    import tensorflow_datasets

    builder = tensorflow_datasets.builder_from_directory(folder)
    skip = {"image": tensorflow_datasets.decode.SkipDecoding()}
    raw = builder.as_data_source("train", decoders=skip)
    loaded = builder.as_data_source("train")
    features = builder.info.features
    names = features["label"].names if "label" in features else None
    assert "tensorflow" not in sys.modules
    return [
        Row(
            stored["file_name"].decode(),
            stored["image"],
            decoded["image"],
            *_label(decoded.get("label"), names),
        )
        for stored, decoded in ((raw[i], loaded[i]) for i in range(len(raw)))
    ]


def read_webdataset(folder: Path, tmp_path: Path) -> list[Row]:
    import webdataset

    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    raw = webdataset.WebDataset(urls, shardshuffle=False)
    rows = []
    for stored, decoded in zip(raw, raw.decode("rgb8"), strict=True):
        (suffix,) = stored.keys() & {"png", "webp", "jpg"}
        about = decoded["json"]
        assert stored["__key__"] == f"{len(rows):08d}"
        rows.append(
            Row(
                about["file_name"],
                stored[suffix],
                decoded[suffix],
                decoded.get("cls"),
                about.get("class_name"),
            )
        )
    return rows


def read_imagefolder(folder: Path, tmp_path: Path) -> list[Row]:
    import datasets

    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(folder), split="train", cache_dir=str(tmp_path / "hf")
    )
    rows = []
    for stored, decoded in zip(
        loaded.cast_column("image", datasets.Image(decode=False)), loaded, strict=True
    ):
        path = Path(stored["image"]["path"])
        name = path.relative_to(folder.resolve()).as_posix()
        rows.append(Row(name, path.read_bytes(), np.asarray(decoded["image"])))
    return rows


def _label(label, names):
    return label, names[label] if label is not None and label >= 0 else None


READERS = {
    "hf": read_hf,
    "tfds": read_tfds,
    "webdataset": read_webdataset,
    "imagefolder": read_imagefolder,
}


def check(found: list[Row], wanted: list[Row], *, labels: bool = True) -> None:
    assert [row.name for row in found] == [row.name for row in wanted]
    for row, other in zip(found, wanted, strict=True):
        assert row.data == other.data
        np.testing.assert_array_equal(row.pixels, other.pixels)
        known = (other.label, other.class_name) if labels else (None, None)
        assert (row.label, row.class_name) == known
