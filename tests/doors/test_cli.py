import re
import subprocess
import sys
import time

import pytest

from ucjax.cli import settings
from ucjax.cli.command import COMMANDS, build, main
from ucjax.config import photos
from ucjax.errors import UserError
from ucjax.photos.protect import FORMATS
from ucjax.protections.table import PROTECTIONS
from ucjax.report.glossary import GLOSSARY
from ucjax.victims.table import LABELS, MODELS, RECIPES, TREATMENTS


def run(*arguments):
    command = [sys.executable, "-X", "importtime", "-m", "ucjax", *arguments]
    begin = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done, time.monotonic() - begin


def test_help_of_compare_names_every_row_and_column():
    done, _ = run("compare", "--help")
    assert done.returncode == 0
    for table in (PROTECTIONS, MODELS, RECIPES, TREATMENTS, LABELS):
        for name, entry in table.items():
            assert (getattr(entry, "form", "") or name) in done.stdout
            assert entry.sentence in done.stdout


# The names that `compare` lists are those of tables, and tables import what they name.
@pytest.mark.parametrize("command", [None, *sorted({*COMMANDS} - {"compare"})])
def test_help_is_there_at_once(command):
    done, seconds = run(*filter(None, [command, "--help"]))
    if seconds > 0.3:  # a busy machine; once more
        done, seconds = run(*filter(None, [command, "--help"]))
    assert done.returncode == 0
    imported = set(re.findall(r"\|\s+(\w+)$", done.stderr, re.MULTILINE))
    assert "argparse" in imported
    assert not imported & {"jax", "numpy", "PIL", "ml_collections", "absl", "flax"}
    for word in ("exit codes", *(COMMANDS if command is None else [])):
        assert word in done.stdout


def test_mistakes_are_one_line_and_code_2(capsys):
    for arguments, message in [
        (["verify", "a", "--against", "b", "--wrong"], "unexpected argument '--wrong'"),
        (["protct", "a", "b"], "unknown command 'protct': did you mean protect?"),
        (["cure"], "unknown command 'cure'"),
        (["protect"], "the following arguments are required: PHOTOS, OUT: see ucjax protect"),
        (["verify", "a", "--agianst", "b"], "'--agianst': did you mean --against?"),
        (["--verison"], "'--verison': did you mean --version?"),
        (["protect", "a", "b", "--formt=webp"], "'--formt=webp': did you mean --format?"),
        (["protect", "a", "b", "--format", "pgn"], "'pgn' (choose from"),
        (["help", "purty"], "unknown word 'purty': did you mean purity?"),
        (["plan", "--config=configs/pet.py"], "did you mean configs/pets.py?"),
        (["verify", "a", "--against", "b", "--config.seed=1"], "'--config.seed=1'"),
        (["protect", "nowhere", "out"], "nowhere is not a folder"),
        (["protect", "nowhere", "out", "--config=nothing.py"], "no config file nothing.py"),
        (["compare", "nowhere"], "nowhere is not a folder: give the folder of the clean images"),
        (["compare", ".", "--seeds", "0"], "--seeds is 0"),
        (["compare", ".", "--noise-seeds", "0"], "--noise-seeds is 0"),
        (["compare", ".", "--row", "theirs"], "--row 'theirs' looks like LABEL=FOLDER"),
        (["compare", ".", "--row", "=x"], "--row '=x' looks like LABEL=FOLDER"),
        (["compare", ".", "--module", "no_such"], "--module no_such: No module named"),
        (["evaluate", "nowhere", "out", "--seeds", "0"], "--seeds is 0"),
        (["table", "nowhere"], "nowhere holds no finished table"),
        (["report", "nowhere"], "nowhere holds no finished table"),
    ]:
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert error.startswith("error: ")
        assert message in error


def test_the_command_alone_shows_the_usual_tasks(capsys):
    assert main([]) == 0
    said = capsys.readouterr().out
    for task in ("ucjax protect PHOTOS OUT", "ucjax verify OUT --against", "ucjax evaluate PHOTOS"):
        assert task in said


def test_help_explains_the_words_of_the_pages(capsys):
    assert main(["help"]) == 0
    listed = capsys.readouterr().out
    for words, meaning in GLOSSARY.items():
        assert words in listed
        for word in (words, *words.upper().split(", "), words.replace(" ", "_")):
            assert main(["help", *word.split()]) == 0
            assert " ".join(capsys.readouterr().out.split()) == f"{words} {meaning}"
    assert main(["help", "verify"]) == 0
    assert "--against PHOTOS" in capsys.readouterr().out


def test_protect_offers_the_formats_that_the_writer_has():
    option = build(["protect"])[1]["protect"]._option_string_actions["--format"]
    assert tuple(option.choices) == FORMATS


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_every_command_and_option(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in (*COMMANDS, "--against", "--keep-metadata", "--noise-seeds"):
        assert word in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_an_interrupt_says_how_to_go_on(monkeypatch, capsys):
    from ucjax.files import verification

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(verification, "verify_folder", interrupted)
    assert main(["verify", "a", "--against", "b"]) == 130
    assert capsys.readouterr().err == "interrupted: the same command goes on from here\n"


# ml_collections loads config files so.
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_a_config_is_a_file_or_the_defaults_with_options_and_overrides_in_this_order():
    config = settings.load(None, ["--config.noise.epochs=9", "--config.seed=4"], seed=3)
    assert (config.noise.epochs, config.seed, config.data.source) == (9, 4, "folder")
    assert settings.load("configs/pets.py:rn50", []).surrogate.name == "rn50"
    config = settings.load(None, [], seeds=(0, 1), victims=("a+b:c=d",), data__root="a b")
    assert (config.seeds, config.victims, config.data.root) == ((0, 1), ("a+b:c=d",), "a b")
    with pytest.raises(UserError, match="did you mean 'epochs'"):
        settings.load(None, ["--config.noise.epocs=9"])
    with pytest.raises(UserError, match="choose one of clip"):
        settings.load("configs/pets.py:vgg", [])


@pytest.mark.parametrize("count", [3, 500, 700, 50_000])
def test_few_photos_are_shown_as_often_as_many(count):
    few, many = photos(count), photos()
    for ours, usual, images in ((few.noise, many.noise, 15_000), (few.victim, many.victim, 30_000)):
        assert ours.epochs * count >= images
        assert ours.epochs == usual.epochs or (ours.epochs - 1) * count < images
