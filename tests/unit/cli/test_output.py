"""What is printed is what was written: no text from outside is read as the terminal library's markup."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from modelyard.cli.main import app
from modelyard.cli.output import complain, print_table, styled

HOSTILE = "[/bold] [red]:smile: [0, 1]"
NOWHERE = {"MODELYARD_ADDRESS": "127.0.0.1:1", "MODELYARD_TOKEN": "none"}  # never called


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=NOWHERE)


def test_texts_stand_in_tables_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["COLUMN", "STATE"], [[HOSTILE, styled(HOSTILE, "green")]], empty="")
    assert capsys.readouterr().out.count(HOSTILE) == 2


def test_errors_are_told_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    complain(HOSTILE, note="(WHY)")
    assert capsys.readouterr().err == f"error: {HOSTILE} (WHY)\n"


def test_a_program_reads_tables_whose_rows_are_not_folded() -> None:
    code = f"from modelyard.cli.output import print_table; print_table(['A', 'B'], [['{'x' * 200}', 'y']], empty='')"
    kept = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    printed = subprocess.run([sys.executable, "-c", code], env=kept, capture_output=True, text=True, check=True).stdout
    assert [line.split() for line in printed.splitlines()] == [["A", "B"], ["x" * 200, "y"]]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    absent = tmp_path / "[no].yaml"
    for command in (("train", "submit", absent), ("predict", "m", "--file", absent)):
        result = run(*command)
        assert (result.exit_code, result.stderr) == (2, f"error: {absent}: No such file or directory\n")


def test_a_file_that_is_no_text_is_named_with_the_place(tmp_path: Path) -> None:
    binary = tmp_path / "model.onnx"
    binary.write_bytes(b"ab\xff")
    result = run("train", "submit", binary)
    assert (result.exit_code, result.stderr) == (2, f"error: {binary}: expected text in UTF-8; byte 3 is none\n")
