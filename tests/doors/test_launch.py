"""The files of launch/ as far as they can be tried without a cloud: their tools, their commands."""

import copy
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from math import prod
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
TPU_VM = LAUNCH / "tpu_vm.sh"
PLACE = {"NAME": "my-tpu", "ZONE": "us-west4-a", "SHARE": "10.0.0.2:/share"}
JOB = ["--config=configs/quickstart.py", "--config.seeds=(0, 1)"]
COMMANDS = [["create", "--spot"], ["status"], ["sync"], ["run", *JOB], ["logs", "3"], ["delete"]]
# Tools that come with the test extra, where no environment is active as well.
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def start(*command, given="", path=PATH, **environment):
    return subprocess.run(
        [str(word) for word in command],
        cwd=ROOT, input=given, env=os.environ | environment | {"PATH": path},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def stub(folder, name, body):
    """Puts a program of this name into the folder; returns a PATH that finds it first."""
    (folder / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
    (folder / name).chmod(0o755)
    return f"{folder}:{PATH}"


def printed(*command):
    """Returns the command lines that `tpu_vm.sh --print` prints, split into words."""
    result = start(TPU_VM, "--print", *command, **PLACE)
    assert result.returncode == 0, result.stderr
    return [shlex.split(line) for line in result.stdout.splitlines()]


def remote(*command):
    """Returns what `tpu_vm.sh` has the VMs' shells do."""
    words = [word for line in printed(*command) for word in line]
    return [word.removeprefix("--command=") for word in words if word.startswith("--command=")]


def load(name):
    return yaml.safe_load((LAUNCH / name).read_text())


def after_module(words):
    """Returns the program's arguments in the words of a command that starts it."""
    assert words.count("ucjax.main") == 1
    return words[words.index("ucjax.main") + 1 :]


def arguments_of_tpu_vm(folder):
    (command,) = remote("run", *JOB)
    home = fake_home(folder, 'echo "${@@Q}"')
    subprocess.run(["bash", "-c", command], cwd=home, timeout=60, check=True)
    return after_module(shlex.split(wait_for(home / "ucjax.log")))


def arguments_of_slurm(folder):
    path = stub(folder, "srun", 'echo "${@@Q}"')
    result = start("bash", LAUNCH / "slurm.sbatch", *JOB, path=path, SLURM_CPUS_PER_TASK="1")
    assert result.returncode == 0, result.stderr
    return after_module(shlex.split(result.stdout))


def arguments_of_jobset(folder):
    return container()["args"]


def arguments_of_sky(folder):
    (folder / "ucjax-venv" / "bin").mkdir(parents=True)
    stub(folder / "ucjax-venv" / "bin", "python", 'echo "${@@Q}"')
    task = load("sky.yaml")
    result = start("bash", "-euc", task["run"], HOME=str(folder), CONFIG=task["envs"]["CONFIG"])
    return after_module(shlex.split(result.stdout))


def arguments_of_docker(folder):
    text = (LAUNCH / "Dockerfile").read_text()
    assert after_module(json.loads(re.search(r"^ENTRYPOINT (.+)$", text, re.MULTILINE)[1])) == []
    return shlex.split(re.search(r"docker run .* ucjax (--.+)$", text, re.MULTILINE)[1])


def parse(arguments):
    """Lets the program's flags read a command line, without running it."""
    code = "import sys; from absl import flags; from ucjax import main; flags.FLAGS(sys.argv)"
    return start(sys.executable, "-c", code, *arguments)


@pytest.mark.parametrize(
    "find",
    [
        arguments_of_tpu_vm, arguments_of_slurm, arguments_of_jobset,
        arguments_of_sky, arguments_of_docker,
    ],
)  # fmt: skip
def test_the_program_understands_what_it_is_given(find, tmp_path):
    arguments = find(tmp_path)
    result = parse(arguments)
    assert result.returncode == 0, result.stderr
    assert any(a.startswith("--config=") for a in arguments)
    one_process = find in (arguments_of_sky, arguments_of_docker)
    assert ("--distributed" in arguments) != one_process
    # Scripts hand on what they are given, word by word, whatever the shells in between do.
    if find in (arguments_of_tpu_vm, arguments_of_slurm):
        assert arguments == ["--distributed", *JOB]


@pytest.mark.parametrize("wrong", ["--distribute_d", "--config=configs/nowhere.py"])
def test_a_wrong_flag_would_be_found(wrong):
    assert parse([*JOB, wrong]).returncode != 0


def test_shell_files_are_clean():
    files = [TPU_VM, LAUNCH / "slurm.sbatch"]
    result = start("shellcheck", *files)
    assert result.returncode == 0, result.stdout
    task = load("sky.yaml")
    scripts = [*(line for c in COMMANDS for line in remote(*c)), task["setup"], task["run"]]
    for script in scripts:
        result = start("shellcheck", "--shell=bash", "-", given=script)
        assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_print_shows_what_would_be_run(command, tmp_path):
    path = stub(tmp_path, "gcloud", 'echo gcloud "${@@Q}"')
    result = start(TPU_VM, *command, path=path, **PLACE)
    assert result.returncode == 0, result.stderr
    lines = printed(*command)
    assert lines == [shlex.split(line) for line in result.stdout.splitlines()]
    for line in lines:
        assert line[:3] == ["gcloud", "compute", "tpus"]
        assert "--zone=us-west4-a" in line
        assert any(word.split(":")[0] == "my-tpu" for word in line)
        assert not any("$" in word or word[-1] == "=" for word in line), line


@pytest.mark.parametrize("missing", ["NAME", "ZONE", "SHARE"])
def test_tpu_vm_says_what_it_needs(missing):
    result = start(TPU_VM, "--print", "sync", **PLACE | {missing: ""})
    assert result.returncode != 0
    assert missing in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("command", [[], ["destroy"], ["--print"]])
def test_tpu_vm_explains_itself(command):
    result = start(TPU_VM, *command, **PLACE)
    assert result.returncode == 2
    assert "launch/tpu_vm.sh create" in result.stderr
    assert "set -e" not in result.stderr


def fake_home(folder, body):
    """Makes the home of a VM after `sync`, whose Python does this; returns the folder."""
    (folder / "ucjax").mkdir()
    (folder / "venv" / "bin").mkdir(parents=True)
    stub(folder / "venv" / "bin", "python", body)
    return folder


def wait_for(path):
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, f"{path} stays empty"
        time.sleep(0.02)
    return path.read_text()


def test_a_job_on_a_tpu_vm_outlives_its_connection(tmp_path):
    (command,) = remote("run", *JOB)
    home = fake_home(tmp_path, "until [[ -e ../off ]]; do sleep 0.05; done; echo survived")
    # Returns only once nobody holds the pipes any more, as ssh does.
    connection = subprocess.run(
        ["bash", "-c", command], cwd=home, capture_output=True, timeout=60, check=True
    )
    assert connection.stdout == b""
    (home / "off").touch()
    assert wait_for(home / "ucjax.log") == "survived\n"


def directives():
    text = (LAUNCH / "slurm.sbatch").read_text()
    return dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", text, re.MULTILINE))


def test_slurm_starts_one_process_for_every_gpu_and_hides_none():
    given = directives()
    assert given["gres"] == f"gpu:{given['ntasks-per-node']}"
    assert not any(key.startswith("gpus") for key in given)


@pytest.mark.parametrize(("number", "requeued"), [(signal.SIGUSR1, True), (signal.SIGTERM, False)])
def test_slurm_requeues_at_the_time_limit_only(number, requeued, tmp_path):
    assert directives()["signal"].startswith("B:USR1@")
    body = f"echo up > {tmp_path}/up; until [[ -e {tmp_path}/end ]]; do sleep 0.05; done"
    stub(tmp_path, "srun", body)
    path = stub(tmp_path, "scontrol", f'echo "$@" > {tmp_path}/scontrol.log')
    job = subprocess.Popen(
        ["bash", LAUNCH / "slurm.sbatch", *JOB],
        env=os.environ | {"PATH": path, "SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "1"},
    )
    wait_for(tmp_path / "up")
    job.send_signal(number)
    assert job.wait(timeout=60) != 0
    (tmp_path / "end").touch()
    log = tmp_path / "scontrol.log"
    assert (log.read_text() if log.exists() else "") == ("requeue 7\n" if requeued else "")


def jobs():
    return [
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": job["name"]}}
        | {"spec": job["template"]["spec"]}
        for job in load("gke_jobset.yaml")["spec"]["replicatedJobs"]
    ]


def container(job=None):
    (found,) = (job or jobs()[0])["spec"]["template"]["spec"]["containers"]
    return found


def test_the_jobs_of_the_jobset_are_valid():
    version = kubernetes_validate.latest_version()
    for job in jobs():
        kubernetes_validate.validate(job, version, strict=True)
        wrong = copy.deepcopy(job)
        container(wrong)["volumeMount"] = container(wrong).pop("volumeMounts")
        with pytest.raises(kubernetes_validate.ValidationError, match="volumeMount"):
            kubernetes_validate.validate(wrong, version, strict=True)


def test_the_jobset_gives_up_on_bad_input_only():
    (rule,) = load("gke_jobset.yaml")["spec"]["failurePolicy"]["rules"]
    # What the JobSet controller asks of names and reasons; its schema is in no registry.
    assert re.fullmatch("[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule["name"])
    assert rule["action"] == "FailJobSet"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    (job,) = jobs()
    (fatal,) = job["spec"]["podFailurePolicy"]["rules"]
    assert fatal["onExitCodes"] == {"containerName": "ucjax", "operator": "In", "values": [2]}
    assert container()["name"] == "ucjax"
    assert job["spec"]["backoffLimit"] == 0


def test_the_jobset_has_a_process_for_every_host_of_its_slice():
    (job,) = jobs()
    pod = job["spec"]["template"]["spec"]
    chips = prod(map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")))
    assert job["spec"]["parallelism"] == job["spec"]["completions"]
    assert (
        job["spec"]["parallelism"] * container()["resources"]["limits"]["google.com/tpu"] == chips
    )


def test_results_are_written_where_the_volume_is():
    (mount,) = container()["volumeMounts"]
    assert f"--workdir={mount['mountPath']}/" in " ".join(container()["args"])
    folders = re.search(r"^ENV (.+)$", (LAUNCH / "Dockerfile").read_text(), re.MULTILINE)[1]
    assert all(f"={mount['mountPath']}/" in word for word in folders.split())
    task = load("sky.yaml")
    (folder,) = task["file_mounts"]
    assert f'--workdir="{folder}/' in task["run"]


def test_the_dockerfile_is_clean_and_copies_what_there_is():
    result = start("hadolint", LAUNCH / "Dockerfile")
    assert result.returncode == 0, result.stdout
    text = (LAUNCH / "Dockerfile").read_text()
    copied = " ".join(re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE)).split()
    assert copied
    assert all((ROOT / word).exists() for word in copied)


@pytest.mark.parametrize("name", ["Dockerfile", "tpu_vm.sh", "sky.yaml", "gke_jobset.yaml"])
def test_extras_exist(name):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    named = re.findall(r"(?:EXTRA=|extra=|ucjax\[)(\w+)", (LAUNCH / name).read_text())
    assert named
    assert set(named) <= set(extras)
