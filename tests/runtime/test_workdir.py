import pytest

from ucjax.runtime import workdir


@pytest.mark.parametrize(
    ("argv", "typed"),
    [
        (["/some/where/bin/ucjax", "evaluate", "my photos"], "ucjax evaluate 'my photos'"),
        (["/some/ucjax/__main__.py", "compare", "x"], "python -m ucjax compare x"),
        (["/some/ucjax/main.py", "--config=a.py:b"], "python -m ucjax.main --config=a.py:b"),
        (["ucjax.compare"], "ucjax.compare"),
        (["/some/script.py", "$HOME"], "script.py '$HOME'"),
    ],
)
def test_a_command_can_be_pasted_and_names_no_place_of_the_program(argv, typed, tmp_path, mesh):
    assert workdir.record_environment(tmp_path, argv, mesh)["command"] == typed
