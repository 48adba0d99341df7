"""Where the command line gets its settings without a cluster, and what it says when they are wrong."""

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import terminal
from tests.integration.conftest import Scene
from tests.support import manifest
from tests.terminal import video_id

pytestmark = pytest.mark.integration


def write(scene: Scene, *documents: Any) -> str:
    path = scene.home / "all.yaml"
    path.write_text(yaml.safe_dump_all(documents))
    return str(path)


def secret(scene: Scene, **more: Any) -> dict[str, Any]:
    values = {**scene.supabase.env(), **scene.prefect.env()}
    return {"kind": "Secret", "metadata": {"name": "captionacc-credentials"}, "stringData": values, **more}


def bare(scene: Scene) -> dict[str, str]:
    """An environment without any of the variables."""
    return terminal.environment(scene.home)


# What works


def test_reads_the_policy_and_its_secret_from_one_file(scene: Scene):
    scene.insert(1)
    path = write(scene, manifest(), secret(scene))

    said = scene.run("find", "-f", path, "-o", "name", env=bare(scene))

    assert (said.code, said.out) == (0, f"{video_id(1)}\n")
    assert said.err == f"Settings: policy captionacc-prod of {path}, with Secret captionacc-credentials of {path}\n"


def test_reads_an_encoded_secret_from_another_file(scene: Scene):
    scene.insert(1)
    values = {**scene.supabase.env(), **scene.prefect.env()}
    encoded = {key: b64encode(value.encode()).decode() for key, value in values.items()}
    other = scene.home / "secret.yaml"
    other.write_text(yaml.safe_dump(secret(scene, data=encoded, stringData=None)))

    said = scene.run("find", "-f", str(scene.write_policy()), "-f", str(other), "-o", "name", env=bare(scene))

    assert (said.code, said.out) == (0, f"{video_id(1)}\n")


def test_reads_standard_input(scene: Scene):
    scene.insert(1)

    said = scene.run("find", "-f", "-", "-o", "name", stdin=yaml.safe_dump(manifest()))

    assert (said.code, said.out) == (0, f"{video_id(1)}\n")


def test_reads_a_list_as_kubectl_writes_it(scene: Scene):
    policies = {"kind": "List", "items": [manifest(), secret(scene)]}

    assert scene.run("find", "-f", write(scene, policies), env=bare(scene)).code == 0


def test_chooses_one_of_several_policies_by_its_name(scene: Scene):
    scene.insert(1)
    other = {**manifest(limits={"perScan": 7}), "metadata": {"name": "other"}}
    path = write(scene, manifest(), other)

    said = scene.run("find", "other", "-f", path, "--json")

    assert json.loads(said.out)["policy"]["name"] == "other"


def test_a_new_key_of_supabase_works(scene: Scene):
    scene.insert(1)
    env = {**scene.env, **scene.supabase.env(scene.supabase.secret_key)}

    assert scene.run("find", "-o", "name", env=env).out == f"{video_id(1)}\n"


# What is refused: in one line, with what to write


def refused(scene: Scene, *arguments: str, env: dict[str, str] | None = None) -> str:
    said = scene.run("find", *arguments, env=env)
    assert said.code == 2
    assert said.out == ""
    [line] = said.err.splitlines()
    assert line.startswith("Error: ")
    return line


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        (["SUPABASE_URL"], "the environment lacks SUPABASE_URL; set it"),
        (["SUPABASE_SERVICE_ROLE_KEY"], "the environment lacks SUPABASE_SERVICE_ROLE_KEY; set it"),
        (["PREFECT_API_URL"], "the environment lacks PREFECT_API_URL; set it"),
        (["SUPABASE_URL", "PREFECT_API_URL"], "the environment lacks SUPABASE_URL and PREFECT_API_URL; set them"),
    ],
)
def test_a_missing_variable_is_named(scene: Scene, missing, expected):
    env = {name: value for name, value in scene.env.items() if name not in missing}

    assert refused(scene, env=env) == f"Error: {expected}"


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        pytest.param("SUPABASE_URL", "wr0ng", "SUPABASE_URL is no http(s) address; write one such as", id="a_url"),
        pytest.param("PREFECT_API_URL", "ftp://wr0ng", "PREFECT_API_URL is no http(s) address", id="another_url"),
        pytest.param(
            "SUPABASE_SERVICE_ROLE_KEY",
            "sb_publishable_wr0ng",
            "is a public key, which sees no videos",
            id="a_public_key",
        ),
        pytest.param("SUPABASE_SCHEMA", "wr0ng" * 20, "SUPABASE_SCHEMA: write", id="a_schema"),
        pytest.param("PREFECT_API_AUTH_STRING", "wr0ng", "write user:password", id="an_auth_string"),
    ],
)
def test_a_wrong_variable_is_named_and_not_repeated(scene: Scene, variable, value, expected):
    said = refused(scene, env={**scene.env, variable: value})

    assert expected in said
    assert "wr0ng" not in said


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(None, "No such file or directory; write the path of a policy's manifest", id="no_file"),
        pytest.param("", "there is no VideoRecoveryPolicy, only nothing", id="an_empty_file"),
        pytest.param("a: [", "line 1: this is no YAML", id="no_yaml"),
        pytest.param("just words", "a manifest has apiVersion, kind, metadata and spec", id="no_manifest"),
        pytest.param("kind: Pod\n", "there is no VideoRecoveryPolicy, only Pod", id="another_kind"),
        pytest.param("kind: List\nitems: 5\n", "there is no VideoRecoveryPolicy", id="an_odd_list"),
        pytest.param("kind: VideoRecoveryPolicy\n", "apiVersion: write recovery.captiona.cc/v1alpha1", id="no_version"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(scene: Scene, text, expected):
    path = scene.home / "policy.yaml"
    if text is not None:
        path.write_text(text)

    said = refused(scene, "-f", str(path))

    assert said.startswith(f"Error: {path}")
    assert expected in said


def test_a_directory_is_no_file(scene: Scene):
    assert "Is a directory; write the path" in refused(scene, "-f", str(scene.home))


def test_a_wrong_field_is_named(scene: Scene):
    path = scene.write_policy(stuck={"age": "ten"})

    assert refused(scene, "-f", str(path)) == (
        f"Error: {path}: spec.stuck.age: write a duration such as 90s, 10m or 1h30m"
    )


def test_a_secret_of_another_name_is_not_taken(scene: Scene):
    path = write(scene, manifest(), secret(scene, metadata={"name": "other"}))

    assert "the policy names Secret captionacc-credentials, and there is only other; add it" in refused(
        scene, "-f", path
    )


def test_a_secret_that_is_not_encoded_says_where_plain_values_go(scene: Scene):
    path = write(scene, manifest(), secret(scene, data={"SUPABASE_URL": "https://x!"}, stringData=None))

    assert "SUPABASE_URL under data is not base64; write it under stringData" in refused(scene, "-f", path)


def test_policies_are_named_where_there_are_several(scene: Scene):
    path = write(scene, manifest(), {**manifest(), "metadata": {"name": "other"}})

    assert refused(scene, "-f", path) == (
        f"Error: {path}: the policies there are captionacc-prod, other; name one of them"
    )


def test_a_schema_that_supabase_does_not_serve_is_explained(scene: Scene):
    said = scene.run("find", env={**scene.env, "SUPABASE_SCHEMA": "nope"})

    assert said.code == 1
    assert "Supabase does not serve 'nope'" in said.err
    assert "SUPABASE_SCHEMA names the schema" in said.err


def test_an_unknown_command_lists_what_there_is(tmp_path: Path):
    said = terminal.run("fnd", env=terminal.environment(tmp_path))

    assert (said.code, said.out) == (2, "")
    assert "No such command 'fnd'" in said.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_prints_a_completion_for_each_shell(tmp_path: Path, shell):
    said = terminal.run("completion", shell, env=terminal.environment(tmp_path))

    assert said.code == 0
    assert "_VIDEO_RECOVERY_COMPLETE" in said.out


def test_completes_commands_and_options(tmp_path: Path):
    env = terminal.environment(tmp_path, {"_VIDEO_RECOVERY_COMPLETE": "bash_complete"})
    commands = terminal.run(env={**env, "COMP_WORDS": "video-recovery re", "COMP_CWORD": "1"})
    options = terminal.run(env={**env, "COMP_WORDS": "video-recovery find --te", "COMP_CWORD": "2"})

    assert commands.out.split() == ["plain,retry", "plain,release", "plain,resume"]
    assert options.out.split() == ["plain,--tenant"]
