"""For Azure Custom Vision: one folder a tag, and `tags.csv` with every file's tag.

In the portal each folder is uploaded under its tag; `tags.csv` is for scripts. The service's limits
are those of its standard tier (learn.microsoft.com/azure/ai-services/custom-vision-service/
limits-and-quotas); it trains on tags of at least 5 pictures, and enlarges those below 256 px.
"""

from __future__ import annotations

import csv
from pathlib import Path

from ucjax.exports import imagefolder
from ucjax.exports.platforms import Limits, checked
from ucjax.exports.protected_files import Contents, ProtectedFiles, printable

LIMITS = Limits(
    service="Azure Custom Vision",
    suffixes=(".jpg", ".jpeg", ".png", ".bmp", ".gif"),
    size=6 * 10**6,
    shortest=1,
    longest=10_240,
    ratio=25,
    pictures=100_000,
    classes=500,
)


def write(images: ProtectedFiles, contents: Contents, folder: Path) -> None:
    """Writes every file once, and which tag it has.

    Raises:
      UserError: the tree cannot say what is labelled how, or the service takes no such picture.
    """
    paths = imagefolder.write(images, checked(images, contents, LIMITS), folder)
    if images.class_names:
        with open(folder / "tags.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("file", "tag"))
            for picture, path in zip(images.pictures, paths, strict=True):
                if picture.label >= 0:
                    writer.writerow((printable(path), images.class_names[picture.label]))


def reading(images: ProtectedFiles, folder: Path) -> str:
    """Returns where an export goes."""
    del images
    return f"https://www.customvision.ai: upload each folder of {folder} under its tag"
