"""Parquet files and a data card, as `datasets.load_dataset` reads them from a folder or the Hub.

The column `image` holds a picture's bytes and its path, `label` its class (-1 where unknown). The
features are stored both in the files, for `load_dataset("parquet", …)`, and in the card.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from ucjax.exports.protected_files import Contents, ProtectedFiles

# A row group is what a writer and a reader hold in memory. An Arrow array of bytes ends at 2 GiB.
_GROUP_BYTES, _GROUP_ROWS = 32_000_000, 1000


def write(images: ProtectedFiles, contents: Contents, folder: Path) -> None:
    """Writes `data/train-00000-of-….parquet` and `README.md`."""
    (folder / "data").mkdir()
    schema, counts = _schema(images.class_names), images.shards()
    for shard, count in enumerate(counts):
        path = folder / "data" / f"train-{shard:05d}-of-{len(counts):05d}.parquet"
        # The pictures are compressed already, and searched by nobody.
        options: dict[str, Any] = {"compression": "none", "use_dictionary": False}
        with pq.ParquetWriter(path, schema, write_statistics=False, **options) as writer:
            _write_shard(writer, itertools.islice(contents, count), schema)
    (folder / "README.md").write_text(_card(images), encoding="utf-8")


def reading(images: ProtectedFiles, folder: Path) -> str:
    """Returns the line that opens an export."""
    return f"datasets.load_dataset({str(folder)!r}, split='train')"


def _write_shard(writer: pq.ParquetWriter, contents: Contents, schema: pa.Schema) -> None:
    rows: list[dict[str, Any]] = []
    size = 0
    for picture, data in contents:
        if rows and (len(rows) == _GROUP_ROWS or size + len(data) > _GROUP_BYTES):
            writer.write_table(pa.Table.from_pylist(rows, schema))
            rows, size = [], 0
        # Keys that the schema lacks are passed over.
        rows.append({"image": {"bytes": data, "path": picture.name}, "label": picture.label})
        size += len(data)
    writer.write_table(pa.Table.from_pylist(rows, schema))


def _schema(class_names: tuple[str, ...]) -> pa.Schema:
    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    fields: dict[str, pa.DataType] = {"image": image}
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    if class_names:
        fields["label"] = pa.int64()
        features["label"] = {"names": list(class_names), "_type": "ClassLabel"}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema(fields, metadata=metadata)


def _card(images: ProtectedFiles) -> str:
    """Returns the data card (huggingface.co/docs/hub/datasets-cards)."""
    features: list[dict[str, Any]] = [{"name": "image", "dtype": "image"}]
    if images.class_names:
        names = {str(label): name for label, name in enumerate(images.class_names)}
        features.append({"name": "label", "dtype": {"class_label": {"names": names}}})
    split = {"name": "train", "num_bytes": images.size, "num_examples": len(images.pictures)}
    files = [{"split": "train", "path": "data/train-*"}]
    header = {
        "dataset_info": {"features": features, "splits": [split]},
        "configs": [{"config_name": "default", "data_files": files}],
    }
    classes = f" in {len(images.class_names)} classes" if images.class_names else ""
    text = yaml.safe_dump(header, sort_keys=False, allow_unicode=True)
    return f"---\n{text}---\n\n# Images\n\n{len(images.pictures)} images{classes}.\n"
