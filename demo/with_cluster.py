"""The second part of the story has a cluster: a policy is applied, and its user watches what becomes of the videos."""

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from demo.processing import PATIENCE, create_videos, show_processing, wait_until
from demo.screen import Shell, heading, say, show_command
from demo.situations import Situation
from devstack import ControlPlane, Stack
from devstack.process import Child

PROJECT = Path(__file__).resolve().parent.parent
NAMESPACE = "video-recovery-demo"
NAME = f"captionacc-prod -n {NAMESPACE}"
POLICY = f"vrp {NAME}"
REQUESTED_AT = "recovery.captiona.cc/requestedAt"


def show_with_cluster(stack: Stack, cluster: ControlPlane, *, keep: bool) -> None:
    """Install, apply, scan, suspend, delete; with `keep`, leave everything running until Ctrl-C."""
    with tempfile.TemporaryDirectory(prefix="video-recovery-demo-") as directory:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # where kubectl finds the plugin
        shell = Shell(
            PROJECT, {"kubectl": cluster.kubectl_program}, {"KUBECONFIG": str(cluster.kubeconfig), "PATH": path}
        )
        videos = create_videos(stack)
        try:
            install(shell, stack, Path(directory))
            with controller(cluster, Path(directory) / "controller.log"):
                apply_policy(shell)
                first_scan(shell, stack, videos)
                second_scan(shell)
                suspend(shell)
                if keep:
                    wait_for_user(stack, cluster, Path(directory) / "controller.log")
                heading("The policy goes, and takes nothing with it")
                shell.run(f"kubectl delete {POLICY}")
        finally:
            if not cluster.own:
                shell.run(f"kubectl delete namespace {NAMESPACE} --ignore-not-found --wait=false")


def install(shell: Shell, stack: Stack, directory: Path) -> None:
    """Install the CRD and the controller's rights, and put the credentials into a Secret."""
    heading("Install")
    shell.run("kubectl apply --server-side -f manifests/crd.yaml -f manifests/rbac.yaml")
    shell.run("kubectl wait --for=condition=Established crd/videorecoverypolicies.recovery.captiona.cc")
    shell.run(f"kubectl create namespace {NAMESPACE}")
    credentials = directory / "credentials.env"
    credentials.touch(mode=0o600)
    values = {**stack.supabase.env(), **stack.prefect.env()}
    credentials.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    create = f"kubectl create secret generic captionacc-credentials -n {NAMESPACE} --from-env-file"
    shell.run(f"{create}={credentials}", shown=f"{create}=credentials.env")


@contextmanager
def controller(cluster: ControlPlane, log: Path) -> Iterator[None]:
    """Run the controller with just the rights of its service account; show what it logged at the end."""
    kubeconfig = cluster.service_account("video-recovery", "video-recovery")
    show_command("video-recovery run &")
    child = Child.start(
        "the controller",
        [sys.executable, "-m", "controller", "run", "--kubeconfig", kubeconfig],
        log=log,
        cwd=PROJECT,
        ready=lambda: "watching" in log.read_text(),
        timeout=PATIENCE,
        orphan_signal=signal.SIGTERM,
    )
    try:
        say(log.read_text().rstrip())
        yield
    finally:
        child.stop(grace=PATIENCE)
    heading("What the controller logged meanwhile")
    say(log.read_text().rstrip())


def apply_policy(shell: Shell) -> None:
    """Apply the policy and wait until the controller says that it can be run."""
    heading("One policy, applied")
    show_command("cat demo/policy.yaml")
    manifest = yaml.safe_load((PROJECT / "demo" / "policy.yaml").read_text())
    say(yaml.safe_dump({"spec": manifest["spec"]}, sort_keys=False).rstrip())
    shell.run("kubectl apply -f demo/policy.yaml")
    shell.run(f"kubectl wait --for=condition=Ready {POLICY}".replace("vrp ", "vrp/", 1))
    shell.run(f"kubectl get {POLICY} -o wide")


def first_scan(shell: Shell, stack: Stack, videos: list[Situation]) -> None:
    """Look, force a scan, and show its decisions and the worker at work."""
    heading("What would a scan do now?")
    shell.run(f"kubectl video-recovery find {NAME}")
    heading("It would scan at the next quarter of an hour; this asks for a scan now")
    shell.run(f"kubectl video-recovery scan {NAME}")
    shell.run(f"kubectl get {POLICY}")
    shell.run(f"kubectl events --for VideoRecoveryPolicy/captionacc-prod -n {NAMESPACE}")
    waiting = next(video for video in videos if video.flow_run == "SCHEDULED")
    heading(f"Why was {waiting.name} not recovered?")
    shell.run(f"kubectl video-recovery explain {NAME} --video-id {waiting.id}")
    show_processing(stack, videos)


def second_scan(shell: Shell) -> None:
    """Force another scan: nothing is left to recover, so nothing is triggered."""
    heading("A second scan triggers nothing, and finds that the recoveries of the first one worked")
    request_scan(shell)
    shell.run(f"kubectl get {POLICY}")
    shell.run(f"kubectl get {POLICY} -o jsonpath='{{.status.totals}}'")


def suspend(shell: Shell) -> None:
    """Suspend the policy."""
    heading("Suspend the policy: no scan by its schedule, but one by request still works")
    shell.run(f'kubectl patch {POLICY} --type=merge -p \'{{"spec": {{"suspend": true}}}}\'')
    wait_until(lambda: not next_scan(shell))
    shell.run(f"kubectl get {POLICY} -o wide")


def next_scan(shell: Shell) -> str:
    """When the policy scans next, as its status says."""
    return shell.look(f"kubectl get {POLICY} -o jsonpath={{.status.nextScheduleTime}}")


def request_scan(shell: Shell) -> None:
    """Ask for a scan by annotation and wait until that request was served."""
    token = time.strftime("%Y-%m-%dT%H:%M:%S") + f".{time.monotonic_ns() % 1000:03d}"
    annotate = f"kubectl annotate --overwrite {POLICY} {REQUESTED_AT}="
    shell.run(annotate + token, shown=annotate + '"$(date -Is)"')
    handled = f"kubectl get {POLICY} -o jsonpath={{.status.lastHandledReconcileAt}}"
    wait_until(lambda: shell.look(handled) == token)


def wait_for_user(stack: Stack, cluster: ControlPlane, log: Path) -> None:
    """Say where everything is and leave it running until Ctrl-C."""
    heading("Everything is left running; Ctrl-C ends it")
    for line in (
        f"export KUBECONFIG={cluster.kubeconfig}",
        f"export PATH={cluster.kubectl_program.parent}:$PATH",
        f"# Supabase {stack.supabase.url}, Prefect {stack.prefect.api_url}, the controller's log {log}",
        f"kubectl get vrp -n {NAMESPACE} -w",
        f"kubectl describe {POLICY}",
        f'kubectl annotate --overwrite {POLICY} {REQUESTED_AT}="$(date -Is)"',
        f"kubectl edit {POLICY}",
        "kubectl explain vrp.spec.stuck.age",
    ):
        say(f"  {line}")
    threading.Event().wait()
