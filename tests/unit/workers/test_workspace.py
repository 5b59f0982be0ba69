"""Attempts' folders: private, removed, swept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelyard_workers.workspace import WorkFolder


def test_folders_are_private_whatever_the_umask_and_an_older_folder_say(tmp_path: Path) -> None:
    root = tmp_path / "work"
    root.mkdir(mode=0o777)
    before = os.umask(0)
    try:
        with WorkFolder(root).attempt("job-1") as folder:
            modes = [path.stat().st_mode & 0o777 for path in (root, folder.parent, folder, folder / "tmp")]
    finally:
        os.umask(before)
    assert modes == [0o700] * 4


def test_an_attempts_folder_is_gone_afterwards_also_after_an_error(tmp_path: Path) -> None:
    work = WorkFolder(tmp_path)
    with pytest.raises(RuntimeError), work.attempt("job-1") as folder:
        (folder / "tmp" / "data").write_text("x")
        raise RuntimeError
    assert not folder.exists()


def test_two_attempts_of_one_name_have_folders_of_their_own(tmp_path: Path) -> None:
    work = WorkFolder(tmp_path)
    with work.attempt("job-1") as first, work.attempt("job-1") as second:
        assert first != second


def test_sweeping_removes_what_the_dead_left_and_spares_the_living(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from modelyard_workers.workspace import WorkFolder\n"
        "with WorkFolder(Path(sys.argv[1])).attempt('dead'): os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    work = WorkFolder(tmp_path)
    with work.attempt("alive") as folder:
        assert len(list(folder.parent.iterdir())) == 2
        assert work.sweep() == 1
        assert list(folder.parent.iterdir()) == [folder]
