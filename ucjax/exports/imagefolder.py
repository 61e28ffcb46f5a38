"""A plain tree whose first folders are the classes, as torchvision's ImageFolder and others read.

Where the protected tree is such a one, or nothing has a label, it is copied as it is; else a
picture goes to `<class name>/<its path>`. ImageFolder numbers the classes by the order of their
folders' names, and so may give other numbers than the manifest; it passes over unlabelled files,
which lie in no folder.
"""

from __future__ import annotations

from pathlib import Path

from ucjax.errors import UserError
from ucjax.exports.protected_files import Contents, Picture, ProtectedFiles


def write(images: ProtectedFiles, contents: Contents, folder: Path) -> list[str]:
    """Writes every file once; returns where each lies, relative to `folder`.

    Raises:
      UserError: the tree cannot say what is labelled how.
    """
    folders = None if _is_by_class(images) else _class_folders(images)
    paths = []
    for picture, data in contents:
        paths.append(picture.output if folders is None else _inside(picture, folders))
        path = folder / paths[-1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return paths


def reading(images: ProtectedFiles, folder: Path) -> str:
    """Returns the line that opens an export."""
    if images.class_names:
        return f"torchvision.datasets.ImageFolder({str(folder)!r})"
    return f"datasets.load_dataset('imagefolder', data_dir={str(folder)!r}, drop_labels=True)"


def _is_by_class(images: ProtectedFiles) -> bool:
    """Whether the first folders and the labels determine each other."""
    if not images.class_names:
        return True
    pairs = {(_top(picture.output), picture.label) for picture in images.pictures} | {("", -1)}
    return len(pairs) == len({top for top, _ in pairs}) == len({label for _, label in pairs})


def _top(output: str) -> str:
    """Returns the first folder of a path, "" if it has none."""
    top, separator, _ = output.partition("/")
    return top if separator else ""


def _class_folders(images: ProtectedFiles) -> list[str]:
    folders = [name.replace("/", "_") for name in images.class_names]
    # ".", ".." and "" are no names, and readers pass over hidden folders.
    folders = [f"_{name}" if name[:1] in ("", ".") else name for name in folders]
    if len({folder.casefold() for folder in folders}) < len(folders):
        raise UserError("several class names would give one folder: choose another --to")
    return folders


def _inside(picture: Picture, folders: list[str]) -> str:
    if picture.label < 0:
        raise UserError(
            f"{picture.name} has no label among labelled images, which a tree of class folders "
            "cannot say: choose another --to"
        )
    return f"{folders[picture.label]}/{picture.output}"
