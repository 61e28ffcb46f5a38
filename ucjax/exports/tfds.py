"""A prepared TFDS data set in ArrayRecord, written and read without TensorFlow.

Features: `image` (the file's bytes), `file_name` and `label` (-1 where unknown). TFDS decodes with
Pillow or OpenCV, so that PNG, JPEG and WebP all can be read; a declared encoding would matter only
for arrays, which are never given here. Written as TFDS's guide "external_tfrecord" describes: its
own builder would keep all records of an ordered set in memory.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import tensorflow_datasets
from array_record.python.array_record_module import ArrayRecordWriter

from ucjax.errors import UserError
from ucjax.exports.protected_files import Contents, ProtectedFiles

_NAME, _SPLIT = "images", "train"


def write(images: ProtectedFiles, contents: Contents, folder: Path) -> None:
    """Writes `images-train.array_record-00000-of-…` and TFDS's metadata.

    Raises:
      UserError: TFDS's file of class names could not hold one of the names.
    """
    core = tensorflow_datasets.core
    features, counts = _features(images), images.shards()
    template = core.ShardedFileTemplate(
        data_dir=folder, dataset_name=_NAME, split=_SPLIT, filetype_suffix="array_record"
    )
    size = 0
    for shard, count in enumerate(counts):
        path = template.sharded_filepath(shard_index=shard, num_shards=len(counts))
        # One record a group, for random access.
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for picture, data in itertools.islice(contents, count):
            example: dict[str, Any] = {"image": data, "file_name": picture.name}
            if images.class_names:
                example["label"] = picture.label
            record = features.serialize_example(example)
            writer.write(record)
            size += len(record)
        writer.close()
    split = core.SplitInfo(
        name=_SPLIT, shard_lengths=counts, num_bytes=size, filename_template=template
    )
    tensorflow_datasets.folder_dataset.write_metadata(
        data_dir=folder,
        features=features,
        split_infos=[split],
        description=f"{len(images.pictures)} images.",
        disable_shuffling=True,
        check_data=False,  # by reading with TensorFlow
    )


def reading(images: ProtectedFiles, folder: Path) -> str:
    """Returns the line that opens an export."""
    builder = f"tensorflow_datasets.builder_from_directory({str(folder)!r})"
    return f"{builder}.as_data_source({_SPLIT!r})"


def _features(images: ProtectedFiles) -> tensorflow_datasets.features.FeaturesDict:
    features = tensorflow_datasets.features
    suffixes = {picture.suffix for picture in images.pictures}
    encoding = "png" if suffixes == {".png"} else "jpeg" if suffixes <= {".jpg", ".jpeg"} else None
    columns = {
        "image": features.Image(encoding_format=encoding),
        "file_name": features.Text(),
    }
    if images.class_names:
        for name in images.class_names:
            if name != name.strip() or "\n" in name or not name:
                raise UserError(
                    f"TFDS cannot hold the class name {name!r}, with space around it or a line "
                    "break in it: rename the class, or choose another --to"
                )
        columns["label"] = features.ClassLabel(names=images.class_names)
    return features.FeaturesDict(columns)
