import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFIGS = sorted(path.stem for path in Path("configs").glob("[a-z]*.py"))


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "ucjax.main", *arguments], capture_output=True, text=True, timeout=60
    )


def test_help_explains_every_flag_and_does_not_import_jax():
    result = run("--help")
    assert result.returncode == 0
    for flag in (
        "--config", "--workdir", "--reuse", "--coordinator", "--processes", "--process_id",
    ):  # fmt: skip
        assert flag in result.stdout
    code = "import sys, ucjax.main; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no --config: try"),
        (["--config=configs/nowhere.py"], "no config file configs/nowhere.py"),
        (["--config=configs/pets.py:vgg"], "choose one of clip, clip_rn50, rn50"),
        (["--config=configs/pets.py", "--config.noise.epocs=1"], "did you mean 'epochs'?"),
        (["--config=configs/pets.py", "--config.noise.epochs=many"], "'many'"),
        (["--config=configs/pets.py", "--wrkdir=x"], "wrkdir"),
        (["--config=configs/pets.py", "extra"], "unexpected argument 'extra'"),
        (["--config=configs/quickstart.py", "--processes=2"], "needs --coordinator"),
        (["--config=configs/quickstart.py", "--process_id=7"], "not one of 0 to 0"),
        (["--config=configs/quickstart.py", "--config.noise.epsilon_255=300"], "is 300"),
        (["--config=configs/quickstart.py", "--config.protections=('cleen',)"], "mean clean"),
        (["--config=configs/quickstart.py", "--config.victims=('resnet81',)"], "mean resnet18"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, message):
    fails_in_one_line(arguments, message, 2)


@pytest.mark.parametrize("config", ["configs/quickstart.py", "configs/pets.py:rn50"])
def test_what_cannot_be_written_is_one_line_and_exit_code_1(config):
    fails_in_one_line([f"--config={config}", "--workdir=/proc/nowhere"], "/proc/nowhere", 1)


def fails_in_one_line(arguments, message, code):
    result = run(*arguments)
    assert result.returncode == code, result.stderr
    assert message in result.stderr
    lines = [line for line in result.stderr.splitlines() if line]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")


@pytest.mark.parametrize(
    "flag", [["--config=configs/pets.py:vgg"], ["--config", "configs/pets.py:vgg"]]
)
def test_configs_are_found_where_they_are_installed(flag, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    result = subprocess.run(
        [sys.executable, "-m", "ucjax.main", *flag], cwd=tmp_path, env=environment,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert "choose one of clip, clip_rn50, rn50" in result.stderr


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_is_locked_and_passes_the_checks(name):
    import importlib

    from ucjax.comparison import run
    from ucjax.runtime import parallel

    config = importlib.import_module(f"configs.{name}").get_config()
    assert config.is_locked
    with pytest.raises(AttributeError):
        config.noise.epocs = 1
    plan = run.check(config, parallel.make_mesh())
    assert "clean" in [str(row) for row in plan.rows]
