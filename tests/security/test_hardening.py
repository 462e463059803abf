"""What the programs are built with, read from the files."""
import subprocess

import pytest


@pytest.fixture(params=["heirflow/heirflow", "interface/heirflow-interface"])
def program(build, request):
    return str(build / request.param)


def said(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_loaded_anywhere_and_bound_at_the_start(program):
    assert "DYN (Position-Independent Executable file)" in said("readelf", "--file-header", program)
    assert "NOW" in said("readelf", "--dynamic", program).split("FLAGS", 1)[1]
    headers = said("readelf", "--program-headers", "--wide", program)
    assert "GNU_RELRO" in headers
    stack = next(line for line in headers.splitlines() if "GNU_STACK" in line)
    assert "RWE" not in stack


def test_guards_on_the_stack_and_around_buffers(program):
    needed = said("nm", "--dynamic", program)
    assert "__stack_chk_fail" in needed and "__snprintf_chk" in needed


def test_only_intended_targets_of_jumps(program):
    if "Advanced Micro Devices X86-64" not in said("readelf", "--file-header", program):
        pytest.skip("x86-64 only")
    assert "endbr64" in said("objdump", "--disassemble=main", program)
