"""The command line as a process: what it loads, and what it says where the machine is not as it should be."""

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

PROGRAM = Path(sys.executable).with_name("video-recovery")
SETTINGS = {
    "PATH": os.environ["PATH"],
    "SUPABASE_URL": "http://127.0.0.1:1",
    "SUPABASE_SERVICE_ROLE_KEY": "sb_secret_none",
    "PREFECT_API_URL": "http://127.0.0.1:1/api",
}


def run(*arguments: str, stdout: int | IO[str] = subprocess.PIPE, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *arguments],
        env={**SETTINGS, **more},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    )


def test_certificates_that_cannot_be_read_are_named_with_their_variable(tmp_path):
    said = run("find", SSL_CERT_FILE=str(tmp_path / "gone.pem"))

    assert said.returncode == 2
    assert said.stderr.splitlines()[-1] == (
        "Error: the certificates that this process is to trust cannot be read (No such file or directory); write into "
        "SSL_CERT_FILE or SSL_CERT_DIR of its environment where they are, or unset both"
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("command", ["find", "retry"])
def test_output_that_cannot_be_written_is_said_and_is_no_defect(command):
    with Path("/dev/full").open("w") as full:
        said = run(command, stdout=full)

    assert said.returncode == 1
    assert said.stderr.splitlines()[-1] == "Error: the output cannot be written (No space left on device)"


def test_what_runs_without_a_cluster_loads_neither_kopf_nor_the_kubernetes_client():
    code = "import sys, controller.cli.commands.run; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert "supabase" in loaded
    assert not {"kopf", "kubernetes"} & set(loaded)
