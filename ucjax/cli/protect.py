"""`ucjax protect PHOTOS OUT`."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from ucjax.cli.command import add_config

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from ucjax.files.protect import ProtectedSet
    from ucjax.photos.protect import Protection


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("photos", metavar="PHOTOS", type=Path, help="folder of the originals")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder of the copies; may be new")
    parser.add_argument(
        "--protector", type=Path, metavar="FOLDER", help="use this one instead of training"
    )
    parser.add_argument(
        "--protection",
        metavar="ROW",
        help="what to learn: gratings:color=all (default), uc, or another row of one noise per "
        "cluster, with its keys (gratings:bands=1/40,1/21); see ucjax compare --help",
    )
    parser.add_argument(
        "--format",
        choices=("auto", "png", "webp", "jpeg", "same"),  # photos.protect imports numpy
        default="auto",
        help="png and webp are lossless; jpeg breaks the budget, by as much as is then printed; "
        "same: JPEG for JPEG, WebP for WebP, else PNG; auto (default): same for gratings, else png",
    )
    parser.add_argument(
        "--strength",
        choices=("subtle", "balanced", "strong"),
        help="gratings, from hardly to plainly visible (strong: the default); instead of "
        "--protection and --eps",
    )
    parser.add_argument("--eps", type=int, metavar="N", help="budget in 1/255 (default 16)")
    parser.add_argument("--clusters", type=int, metavar="P", help="default 10, or fewer photos")
    parser.add_argument("--batch-size", type=int, metavar="N", help="images a training step")
    parser.add_argument("--seed", type=int, metavar="N", help="default 0")
    parser.add_argument("--threads", type=int, metavar="N", help="default one a processor")
    parser.add_argument(
        "--keep-metadata",
        nargs="+",
        default=[],
        choices=("camera", "gps"),
        metavar="KIND",
        help="camera gps: beside rights, description, date and colour profile, which are kept",
    )
    parser.add_argument(
        "--max-megapixels", type=float, metavar="M", help="refuse larger pictures (default 200)"
    )
    parser.add_argument(
        "--opt-out", action="store_true", help="add the IPTC reservation against AI training (XMP)"
    )
    add_config(parser)


def run(arguments: argparse.Namespace) -> int:
    """Protects the folder; returns 3 if some pictures could not be protected."""
    from ucjax.errors import UserError

    if arguments.threads is not None and arguments.threads < 1:
        raise UserError(f"--threads is {arguments.threads}: at least 1")
    if arguments.seed is not None and not 0 <= arguments.seed < 2**31:
        raise UserError(f"--seed is {arguments.seed}: from 0 to {2**31 - 1}")
    if arguments.protector:
        _check_unused(arguments)
    protection = _protection(arguments)
    config = _config(arguments, protection)
    from ucjax.data import decode
    from ucjax.errors import printable
    from ucjax.photos import protect as owner
    from ucjax.report import owner as page
    from ucjax.runtime import parallel

    if arguments.max_megapixels is not None:
        decode.set_max_megapixels(arguments.max_megapixels)
    parallel.initialize(coordinator="", processes=1, process_id=0, detect=False)
    page.check(arguments.out)
    done = owner.protect_folder(
        arguments.photos,
        arguments.out,
        config,
        published=arguments.protector,
        protection=protection,
        format=arguments.format,
        opt_out=arguments.opt_out,
        keep=arguments.keep_metadata,
        threads=arguments.threads,
    )
    report = page.write(
        arguments.photos, arguments.out, protector=arguments.protector, unlisted=done.unlisted
    )
    failures = (*done.unlisted, *done.written.failures)
    for name, what in done.converted:
        print(f"converted: {printable(name)}: {printable(what)}")
    for name in done.written.removed:
        print(f"removed: the copy of {printable(name)}, which is gone")
    for name, reason in failures:
        print(f"not protected: {printable(name)}: {printable(reason)}")
    print(_summary(done, arguments))
    print(f"report                   {printable(str(report))}")
    return 3 if failures else 0


def _check_unused(arguments: argparse.Namespace) -> None:
    from ucjax.errors import UserError

    training = ("eps", "clusters", "batch_size", "seed", "config", "strength", "protection")
    given = [f"--{name.replace('_', '-')}" for name in training if getattr(arguments, name)]
    if unused := [*given, *arguments.overrides]:
        raise UserError(f"{unused[0]} is for training, and --protector trains nothing: drop one")


def _protection(arguments: argparse.Namespace) -> str:
    from ucjax.config import OWNERS_ROW
    from ucjax.errors import UserError

    if not arguments.strength:
        return arguments.protection or OWNERS_ROW
    if given := [key for key in ("protection", "eps") if getattr(arguments, key)]:
        raise UserError(f"--strength {arguments.strength} sets --{given[0]} as well: drop one")
    from ucjax.protections.gratings import STRENGTHS

    return STRENGTHS[arguments.strength]


def _config(arguments: argparse.Namespace, row: str) -> ConfigDict:
    from ucjax.cli import settings

    options = {
        "noise__epsilon_255": arguments.eps,
        "clusters__k": arguments.clusters,
        "noise__batch_size": arguments.batch_size,
        "noise_seeds": None if arguments.seed is None else (arguments.seed,),
    }
    given = {key: value for key, value in options.items() if value is not None}
    count = settings.counted(arguments.photos)
    return settings.load(arguments.config, arguments.overrides, photos=count, row=row, **given)


def _summary(done: Protection, arguments: argparse.Namespace) -> str:
    from ucjax.errors import printable

    written, budget = done.written, done.protector.epsilon_255
    lossy = ", which JPEG does not keep" if written.cue else ""
    folder, photos = (shlex.quote(str(x)) for x in (written.folder, arguments.photos))
    check = f"ucjax verify {folder} --against {photos}"
    if arguments.protector:
        check += f" --protector {shlex.quote(str(arguments.protector))}"
    # See docs/photos.md: it asks, and stops nobody.
    opted = "\non a site of your own  HTTP header tdm-reservation: 1" if arguments.opt_out else ""
    growth = written.output_bytes / max(1, written.source_bytes)
    cue = ""
    if written.cue:
        cue = f"\nnoise left in JPEG files {written.cue[0]:.0%} median, {written.cue[1]:.0%} least"
    return f"""\
files                    {written.count} protected, {len(written.failures)} not
largest change on disk   {written.max_delta_255} of 255 (budget {budget}{lossy}){cue}
PSNR                     {written.psnr_median:.1f} dB median, {written.psnr_min:.1f} least
SSIM                     {written.ssim_median:.3f} median, {written.ssim_min:.3f} least
{_seen("seen at 1:1", written, "")}
{_seen("seen at 1080 px", written, "_screen")}
size                     {written.output_bytes / 2**20:.1f} MiB, {growth:.2f} times the originals
speed                    {written.count / done.seconds:.1f} files/s, checks included
publish                  {printable(str(written.folder / "images"))}
keep private             {printable(str(written.folder / "manifest.jsonl"))}, {done.place}
check                    {printable(check)}{opted}"""


def _seen(label: str, written: ProtectedSet, suffix: str) -> str:
    """Returns a line of medians of what people see."""
    ssim, mean, high = (
        written.seen[f"{key}{suffix}"][0] for key in ("ssim_luma", "delta_e_mean", "delta_e_p95")
    )
    return (
        f"{label:<25}SSIM of luminance {ssim:.3f}, CIEDE2000 {mean:.1f} mean, {high:.1f} of the "
        "95th percentile (medians)"
    )
