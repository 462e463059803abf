"""What works without configuration, database or broker, and what bad input costs: one line and the right exit code."""
import os
import subprocess

import pytest

COMMANDS = ["run", "status", "history", "audit", "news", "check", "migrate", "version", "help"]


@pytest.fixture
def bare(heirflow):
    """Runs the program in an empty environment with a configuration that does not exist."""
    def run(*arguments, **more):
        return subprocess.run([heirflow, *arguments], env={"HEIRFLOW_CONFIG": "/no/such/file"} | more, capture_output=True,
                              text=True, timeout=20, stdin=subprocess.DEVNULL)
    return run


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["help"], ["version"], ["--version"],
                                       *([name, "--help"] for name in COMMANDS), *(["help", name] for name in COMMANDS)])
def test_help_and_version_need_nothing(bare, arguments):
    result = bare(*arguments)
    assert result.returncode == 0 and result.stdout and not result.stderr


def test_help_names_every_command(bare):
    text = bare("--help").stdout
    assert all(f"\n  {name} " in text for name in COMMANDS) and "keeper" not in text


@pytest.mark.parametrize("arguments, says", [
    ([], "no command given"), (["fly"], 'unknown command "fly"'), (["status", "--fly"], 'unknown option "--fly"'),
    (["help", "fly"], 'unknown command "fly"'), (["run", "sleep", "1"], "goes after --"), (["run", "--"], "no command after --"),
    (["news", "--limit", "many"], "whole number"), (["status"], "/no/such/file: No such file"),
    (["run", "--config", "/no/such/other", "--", "sleep", "1"], "/no/such/other: No such file")])
def test_bad_usage_is_one_line_and_exit_code_2(bare, arguments, says):
    result = bare(*arguments)
    assert result.returncode == 2 and result.stdout == ""
    assert says in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize("configuration, says", [
    ('{"lease": 1}', 'line 1: "lease" is no known key'), ('{"lease_ms": "1"}', "must be a whole number"),
    ('{"lease_ms": 6000, "heartbeat_ms": 3000}', "heartbeat <= lease/3"), ("{", "line 1, column"), ("", "not valid JSON"),
    ('{"node": "a b"}', "without spaces"), ('{"node": "a\\u001b[2J"}', "control characters"),
    ('{"node": "%s"}' % ("n" * 10000), "10000 bytes long"), ("{}", "no command to run")], ids=lambda text: text[:40])
def test_bad_configuration_is_one_line_and_exit_code_2(bare, folder, configuration, says):
    path = folder / "heirflow.json"
    path.write_text(configuration)
    result = bare("run", "--config", str(path), PATH="/usr/bin:/bin")
    assert result.returncode == 2 and result.stdout == ""
    assert says in result.stderr and result.stderr.count("\n") == 1 and len(result.stderr) < 1200
    assert "\x1b" not in result.stderr


def test_a_secret_that_cannot_be_read(bare, folder):
    result = bare("status", HEIRFLOW_CONFIG="/dev/null", HEIRFLOW_POSTGRES_FILE=str(folder / "missing"))
    assert result.returncode == 2 and "HEIRFLOW_POSTGRES_FILE" in result.stderr and "No such file" in result.stderr


def test_a_secret_that_another_user_may_not_read(heirflow, folder):
    path = folder / "secret"
    path.write_text("host=127.0.0.1")
    path.chmod(0o600)
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    result = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", heirflow, "status"], text=True,
                            env={"HEIRFLOW_CONFIG": "/dev/null", "HEIRFLOW_POSTGRES_FILE": str(path)}, capture_output=True)
    if "failed to execute" in result.stderr:
        pytest.skip("the build folder is closed to other users")
    assert result.returncode == 2 and "Permission denied" in result.stderr and "let this user read it" in result.stderr


def test_output_that_cannot_be_written_is_told(heirflow):
    with open("/dev/full", "w") as full:
        result = subprocess.run([heirflow, "--help"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 1 and "standard output" in result.stderr
