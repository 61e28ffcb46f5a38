"""Cells: the result of one victim on one set of files, remembered by content.

A cell's key is the SHA-256 of the pixels and labels it trains on, of those it is tested on, and of
the victim. Whoever asks for the same cell again, by whatever name, finds it in `cells/`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ucjax.errors import UserError
from ucjax.runtime import checkpoint, workdir
from ucjax.victims.contract import VictimSpec
from ucjax.victims.training import EpochRecord, VictimResult

CELLS = "cells"
# Part of every key: raise it when victims train otherwise than before.
FORMAT = 1
# Settings that victims did not have at first: off, they are no part of a key, so that the cells
# from before are still found.
_ADDED = ("clip_norm", "pretrain_epochs")


def key(train: str, test: str, spec: VictimSpec, seed: int) -> str:
    """Returns the key of a cell.

    Args:
      train: hex digest of the training set (`ground.fingerprint`).
      test: hex digest of the clean test set.
      spec: the victim.
      seed: of its weights, order, crops and draws.
    """
    victim = {k: v for k, v in asdict(spec).items() if v or k not in _ADDED}
    parts = [FORMAT, train, test, victim, seed]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def path_of(folder: Path, key: str) -> Path:
    """Returns where a cell lies in a run's folder."""
    return folder / CELLS / f"{key[:20]}.json"


def find(key: str, folder: Path, reuse: Sequence[Path]) -> VictimResult | None:
    """Returns a finished cell of this run's folder, or of those to reuse, copied into it.

    Raises:
      UserError: a cell is damaged or forged.
    """
    for place in (folder, *reuse):
        path = path_of(place, key)
        if path.exists():
            cell = checkpoint.read_json(path)
            result = parse(cell, key, path)
            if place != folder:
                checkpoint.write_json(path_of(folder, key), cell)
            return result
    return None


def save(
    folder: Path, key: str, result: VictimResult, spec: VictimSpec, about: dict[str, Any]
) -> None:
    """Writes a finished cell; `about` says for whom it was first computed."""
    cell = {
        "key": key,
        **about,
        "victim": asdict(spec),
        "result": result_json(result),
        "versions": workdir.versions(),
    }
    checkpoint.write_json(path_of(folder, key), cell)


def result_json(result: VictimResult) -> dict[str, Any]:
    """Returns a result as plain JSON."""
    return {
        "last": result.last,
        "peak": result.peak,
        "classes": list(result.classes),
        "curve": [list(record) for record in result.curve],
    }


def parse(cell: Any, key: str, path: Path) -> VictimResult:
    """Reads a cell, trusting nothing in it.

    Raises:
      UserError: it is not the cell of this key, or holds what no victim can reach.
    """
    try:
        if cell["key"] != key:
            raise ValueError("it is another cell")
        return parse_result(cell["result"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{path} is no cell of this victim ({reason}): delete it") from error


def parse_result(found: Any, trained: bool = True) -> VictimResult:
    """Reads what `result_json` gave; without a curve if it was not `trained` here.

    Raises:
      KeyError, TypeError, ValueError: it is something else.
    """
    curve = tuple(EpochRecord(*(float(value) for value in row)) for row in found["curve"])
    classes = tuple(None if value is None else _share(value) for value in found["classes"])
    if bool(curve) != trained or not all(math.isfinite(record.train_loss) for record in curve):
        raise ValueError(f"its curve {'is empty or not finite' if trained else 'is not its own'}")
    tested = [_share(record.test_accuracy) for record in curve]
    for record in curve:
        _share(record.train_accuracy)
    last, peak = _share(found["last"]), _share(found["peak"])
    if trained and not (math.isclose(tested[-1], last) and math.isclose(max(tested), peak)):
        raise ValueError("its last and best accuracy contradict its curve")
    return VictimResult(last, peak, curve, classes)


def _share(value: Any) -> float:
    number = float(value)
    if not 0 <= number <= 1:
        raise ValueError(f"{number} is no accuracy")
    return number
