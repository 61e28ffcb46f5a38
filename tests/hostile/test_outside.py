"""What strangers hand in is input: nothing outside is read or written, and `verify` sees it."""

import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time

import containers
import odd_files
import pytest
import ready
from PIL import Image, PngImagePlugin
from ready import edit_json, edit_line, one_line, protect, ucjax

from ucjax.data import decode
from ucjax.data.rows import in_memory
from ucjax.errors import UserError
from ucjax.files.manifest import items_of, read_manifest

# A manifest's names

NAMES = {
    "absolute": ("output", "/etc/passwd", "is no relative path"),
    "parent": ("output", "../../photos/cats/0.jpg", "leads out of its folder"),
    "inner parent": ("output", "cats/../../x.png", "leads out of its folder"),
    "dot": ("output", "./cats/0.png", "leads out of its folder"),
    "drive": ("output", "C:/x.png", "begins with a drive letter"),
    "NUL": ("output", "cats/0.png\0.txt", "holds a NUL"),
    "empty": ("output", "", "is no name"),
    "no text": ("output", 3, "output is 3, not a text"),
    "case": ("output", "CATS/2.PNG", "line 2: output 'cats/2.png' is that of line 1"),
    "output twice": ("output", "cats/2.png", "line 2: output 'cats/2.png' is that of line 1"),
    "half a letter": ("output", "\ud800.png", "is no file name"),
    "absolute source": ("name", "/etc/passwd", "is no relative path"),
    "parent of a source": ("name", "../x.jpg", "leads out of its folder"),
    "source twice": ("name", "cats/2.jpg", "line 2: name 'cats/2.jpg' is that of line 1"),
    "hash": (
        "output_sha256",
        "0" * 63,
        f"output_sha256 is '{63 * '0'}', not 64 hexadecimal digits",
    ),
    "change": ("max_delta_255", 1e400, "max_delta_255 is inf, not a whole number"),
    "cluster": ("cluster", [1], "cluster is [1], not a whole number or null"),
    "class": ("class", {}, "class is {}, not a text or null"),
}


@pytest.mark.parametrize("case", NAMES)
def test_a_manifest_is_refused_by_line_and_field(case, place, tmp_path):
    field, value, message = NAMES[case]
    assert [record["name"] for record in read_manifest(place / "out")][1] == "cats/2.jpg"
    edit_line(place / "out", 1, **{field: value})
    if not message.startswith(("line", field)):
        message = f"{field} {value!r} {message}"
    if not message.startswith("line"):
        message = f"line 1: {message}"
    for read in (read_manifest, items_of):
        with pytest.raises(UserError) as error:
            read(place / "out")
        assert message in str(error.value)
    code, text = ucjax("verify", place / "out", "--against", place / "photos")
    assert (code, message in text) == (1, True), text
    one_line(*ucjax("export", place / "out", "--to", "imagefolder", tmp_path / "e"), message)
    assert not (tmp_path / "e").exists()


def test_letters_in_another_form_are_the_same_name(place):
    edit_line(place / "out", 1, output="caf\u00e9.png")
    edit_line(place / "out", 2, output="cafe\u0301.png")
    with pytest.raises(UserError, match=r"line 2: output 'cafe\u0301\.png' is that of line 1"):
        read_manifest(place / "out")


@pytest.mark.parametrize("line", [b"{", b"3", b"[" * 100_000, b"\xff", b"{}"])
def test_lines_of_something_else(line, place):
    path = place / "out" / "manifest.jsonl"
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(UserError, match=r"manifest\.jsonl line 7: "):
        read_manifest(place / "out")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("epsilon_255", 10**400, "job.epsilon_255 is"),
        ("epsilon_255", "16", "job.epsilon_255 is '16'"),
        ("norm", "l0", "job.norm is 'l0'"),
        ("format", "exe", "job.format is 'exe'"),
        ("short_side", -1, "job.short_side is -1"),
        ("keep", ["everything"], "job.keep is"),
    ],
)
def test_a_summary_is_input_too(key, value, message, place):
    edit_json(place / "out" / "summary.json", lambda summary: summary["job"].update({key: value}))
    for command in ("verify", "evaluate"):
        places = (place / "out", "--against", place / "photos")
        if command == "evaluate":
            places = (place / "photos", place / "out")
        one_line(*ucjax(command, *places), message)


# What `verify` finds


def rewrite(folder, data, output="cats/0.png"):
    """Replaces an output and lets the manifest agree."""
    (folder / "out" / "images" / output).write_bytes(data)
    records = read_manifest(folder / "out")
    line = next(i for i, record in enumerate(records) if record["output"] == output) + 1
    edit_line(folder / "out", line, output_sha256=hashlib.sha256(data).hexdigest())


def check(folder, *more):
    return ucjax("verify", folder / "out", "--against", folder / "photos", *more)


def output_of(folder, output="cats/0.png"):
    return (folder / "out" / "images" / output).read_bytes()


def clean_jpeg(folder):
    return (folder / "photos" / "cats" / "0.jpg").read_bytes()


def unchanged(folder):
    with Image.open(folder / "photos" / "cats" / "0.jpg") as image:
        rewrite(folder, containers.encoded(image.convert("RGB"), "PNG"))
    edit_line(folder / "out", 1, max_delta_255=0)


def animated(folder):
    with Image.open(io.BytesIO(output_of(folder))) as image:
        clean = Image.open(folder / "photos" / "cats" / "0.jpg").convert("RGB")
        rewrite(folder, containers.encoded(image, "PNG", save_all=True, append_images=[clean]))


def with_text(kind):
    def tamper(folder):
        info = PngImagePlugin.PngInfo()
        text = clean_jpeg(folder).hex()
        if kind == "xmp":
            info.add_itxt("XML:com.adobe.xmp", f"<x><thumbnail>{text}</thumbnail></x>")
        else:
            info.add_text("comment", text)
        with Image.open(io.BytesIO(output_of(folder))) as image:
            rewrite(folder, containers.encoded(image, "PNG", pnginfo=info))

    return tamper


def with_thumbnail(folder):
    exif = odd_files._with_thumbnail(_some_exif())
    with Image.open(io.BytesIO(output_of(folder))) as image:
        rewrite(folder, containers.encoded(image, "PNG", exif=exif))


def _some_exif():
    exif = Image.Exif()
    exif[0x8298] = "me"
    return exif.tobytes()


def with_exif(tag, value):
    def tamper(folder):
        exif = Image.Exif()
        exif[tag] = value
        with Image.open(io.BytesIO(output_of(folder))) as image:
            rewrite(folder, containers.encoded(image, "PNG", exif=exif))

    return tamper


def as_link(folder):
    path = folder / "out" / "images" / "cats" / "0.png"
    path.rename(folder / "elsewhere.png")
    path.symlink_to(folder / "elsewhere.png")


def linked(*parts):
    def tamper(folder):
        path = (folder / "out" / "images").joinpath(*parts)
        path.rename(folder / "elsewhere")
        path.symlink_to(folder / "elsewhere")

    return tamper


def as_pipe(folder):
    path = folder / "out" / "images" / "cats" / "0.png"
    path.unlink()
    os.mkfifo(path)


def edited_budget(folder):
    edit_json(folder / "out" / "summary.json", lambda s: s["job"].update(epsilon_255=64))


TAMPERED = {
    "unchanged copy": (unchanged, "cats/0.png: equals its source: it carries no noise"),
    "appended": (
        lambda f: rewrite(f, output_of(f) + clean_jpeg(f)),
        "bytes after the end of the picture",
    ),
    "private chunk": (
        lambda f: rewrite(
            f, containers.before_pixels(output_of(f), containers.chunk(b"prVt", clean_jpeg(f)))
        ),
        "cats/0.png: holds a chunk prVt",
    ),
    "second frame": (animated, "cats/0.png: holds further frames"),
    "XMP thumbnail": (with_text("xmp"), "XMP data beyond the fields about rights"),
    "text": (with_text("text"), "a chunk tEXt"),
    "EXIF thumbnail": (with_thumbnail, "cats/0.png: holds the EXIF tag 0x0201"),
    "place": (with_exif(0x8825, {1: "N"}), "the EXIF tag 0x0001"),
    "serial number": (with_exif(0x8769, {0xA431: "12345"}), "the EXIF tag 0xa431"),
    "long text": (with_exif(0x8298, "x" * 5000), "the EXIF tag 0x8298"),
    "rotated": (with_exif(0x0112, 6), "an order to be rotated, but its pixels are upright"),
    "link": (as_link, "cats/0.png: is a link"),
    "linked folder": (linked("cats"), "cats: is a link"),
    "linked images": (linked(), "images: is a link"),
    "pipe": (as_pipe, "cats/0.png: is not a file"),
    "stranger": (
        lambda f: (f / "out" / "images" / "clean.jpg").write_bytes(clean_jpeg(f)),
        "clean.jpg: is not in the manifest",
    ),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_verify_finds(case, place):
    tamper, message = TAMPERED[case]
    assert check(place, "--protector", place / "protector")[0] == 0
    tamper(place)
    code, text = check(place, "--protector", place / "protector")
    assert (code, message in text) == (1, True), text
    assert "Traceback" not in text


def tampered_webp(data, clean):
    yield "a chunk JUNK", containers.in_riff(data, b"JUNK", clean)
    yield "further frames", containers.in_riff(data, b"ANMF", clean)
    yield "bytes after the end", data + clean
    yield "a part that is cut off", data[:-9]


def tampered_jpeg(data, clean):
    yield "further frames", containers.in_jpeg(data, containers.segment(0xE2, b"MPF\0" + clean))
    yield "a segment APP13", containers.in_jpeg(data, containers.segment(0xED, clean))
    yield "a comment", containers.in_jpeg(data, containers.segment(0xFE, clean))
    yield "bytes after the end", data + clean
    jfif = b"JFIF\0\1\1\0\0\1\0\1\x08\x08" + clean[:192]
    yield "a thumbnail", containers.in_jpeg(data, containers.segment(0xE0, jfif))


@pytest.mark.parametrize(
    ("form", "suffix", "tampered"),
    [("webp", ".webp", tampered_webp), ("jpeg", ".jpg", tampered_jpeg)],
)
def test_verify_finds_what_hides_in_other_formats(form, suffix, tampered, place, tmp_path):
    from ucjax.files.containers import strange_parts

    out = tmp_path / form
    options = ("--protector", place / "protector", "--format", form)
    assert ucjax("protect", place / "photos", out, *options)[0] == 0
    data = (out / "images" / "cats" / f"0{suffix}").read_bytes()
    assert strange_parts(data) == []
    for message, changed in tampered(data, clean_jpeg(place)[:20_000]):
        assert any(message in part for part in strange_parts(changed)), message


def test_jpeg_beyond_the_budget_is_not_clean_and_it_says_how_far(place, tmp_path):
    options = ("--protector", place / "protector", "--format", "jpeg")
    assert ucjax("protect", place / "photos", tmp_path / "o", *options)[0] == 0
    largest = json.loads((tmp_path / "o" / "summary.json").read_text())["max_delta_255"]
    assert largest > 16
    code, text = ucjax(
        "verify", tmp_path / "o", "--against", place / "photos", "--protector", place / "protector"
    )
    assert code == 1
    assert f"changed by {largest} levels (linf), over 16 by {largest - 16}: JPEG" in text


def test_the_budget_is_the_protector_s(place):
    code, text = check(place)
    assert (code, "the budget of 16 (linf) is what summary.json says, and was not" in text) == (
        0,
        True,
    )
    edited_budget(place)
    assert check(place)[0] == 0  # nothing contradicts it, as the note says
    code, text = check(place, "--protector", place / "protector")
    assert code == 1
    assert "summary.json states a budget of 64 (linf), the protector one of 16 (linf)" in text
    other = ready.protector(place / "other")
    edit_json(other / "protector.json", lambda described: described.update(epsilon_255=64))
    one_line(*check(place, "--protector", other), "it was edited after it was written")


# Files that are none


def server(path):
    with socket.socket(socket.AF_UNIX) as found:
        os.chdir(path.parent)
        found.bind(path.name)


SPECIAL = {
    "pipe.jpg": os.mkfifo,
    "socket.jpg": server,
    "zero.jpg": lambda path: path.symlink_to("/dev/zero"),
    "terminal.jpg": lambda path: path.symlink_to("/dev/tty"),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_what_is_no_file_is_skipped_at_once(name, place, monkeypatch):
    monkeypatch.chdir(place)
    SPECIAL[name](place / "photos" / name)
    start = time.monotonic()
    code, text = protect(place)
    assert (code, f"{name}: not a file" in text) == (3, True)
    assert check(place)[0] == 0
    assert time.monotonic() - start < 30


@pytest.mark.parametrize(
    "name", ["summary.json", "manifest.jsonl", "protector/protector.json", ".ucjax.json"]
)
def test_a_pipe_where_a_note_should_be_hangs_nothing(name, place):
    path = place / "out" / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    process = ready.start("verify", place / "out", "--against", place / "photos")
    text, _ = process.communicate(timeout=60)
    assert process.returncode in (0, 1, 2)
    assert "Traceback" not in text


def sparse(head):
    def make(path):
        with open(path, "wb") as file:
            file.write(head)
            file.truncate(30 * 2**30)

    return make


GIANTS = {
    "header.png": (sparse(odd_files.png_of(300, 300)), "MiB for 300 x 300 pixels"),
    "nothing.jpg": (sparse(b""), "not a picture"),
    "bmp.bmp": (sparse(containers.encoded(Image.new("RGB", (20, 20)), "BMP")), "MiB for 20 x 20"),
    "large.png": (
        lambda path: path.write_bytes(odd_files.png_of(20_000, 10_001)),
        "more than 200 million pixels",
    ),
}


@pytest.mark.parametrize("name", GIANTS)
def test_giants_are_refused_by_their_header(name, tmp_path):
    make, message = GIANTS[name]
    make(tmp_path / name)
    from ucjax.files.picture import UnreadableError
    from ucjax.files.protect import _read_file

    start = time.monotonic()
    with pytest.raises(UnreadableError) as error:
        _read_file(tmp_path / name).picture(in_memory)
    assert message in str(error.value)
    assert time.monotonic() - start < 2


def test_the_number_of_pixels_can_be_chosen(place):
    try:
        shutil.rmtree(place / "out")
        code, text = protect(place, "--max-megapixels", 0.0029)
        assert "0.0029 million pixels: make it smaller, or raise --max-megapixels" in text
        one_line(code, text, "none of 6 pictures can be protected")
        one_line(*protect(place, "--max-megapixels", -1), "--max-megapixels is -1")
    finally:
        decode.set_max_megapixels(decode.MAX_MEGAPIXELS)


# Formats

OTHERS = {
    "script.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/tmp/x) (w) file\n",
    "page.png": b"%PDF-1.4\n1 0 obj\n",
    "placed.jpg": b"\xd7\xcd\xc6\x9a" + bytes(60),
    "stars.tif": b"SIMPLE  =                    T".ljust(2880),
    "lines.bmp": b"/* XPM */\nstatic char *x[] = {",
    "icon.png": b"icns\0\0\0\x10ic07\0\0\0\x08",
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats_never_reach_their_readers(name, place):
    (place / "photos" / name).write_bytes(OTHERS[name])
    code, text = protect(place)
    assert (code, f"{name}: not a picture, or of a kind that is not read" in text) == (3, True)


def test_nothing_starts_another_program(place):
    program = """
import sys
def audit(event, arguments):
    if event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.startfile"):
        print("STARTS", event, arguments)
sys.addaudithook(audit)
from ucjax.data.decode import open_file
from pathlib import Path
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        open_file(path).load()
    except Exception as error:
        print(type(error).__name__)
"""
    folder = place / "others"
    folder.mkdir()
    for name, data in OTHERS.items():
        (folder / name).write_bytes(data)
    said = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True
    ).stdout
    assert said.split() == ["UnidentifiedImageError"] * len(OTHERS)


def test_one_door_to_pillow():
    import ast
    from pathlib import Path

    import ucjax as package

    root = Path(package.__file__).parent
    opened = {
        file.relative_to(root).as_posix()
        for file in root.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Image.open", "PIL.Image.open")
    }
    # These decode what they have just encoded themselves.
    own = {"victims/treatments.py", "victims/recipes/ueraser.py"}
    assert opened <= {"data/decode.py", *own}
