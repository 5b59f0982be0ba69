"""What trials have found, kept on disk beside the artifacts: a pod that restarts tries nothing twice."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnxruntime as ort

from modelyard.core.logs import get_logger

from .trial_messages import TrialFacts, TrialTask

log = get_logger()


class TrialRecords:
    """One small file per digest. Losing them costs a trial each."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError if the folder cannot be made."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder

    def find(self, digest: str, task: TrialTask) -> TrialFacts | None:
        """What a trial under the same conditions has found, if there was one. Blocking."""
        try:
            record = json.loads(self._path(digest).read_text())
            return TrialFacts(**record["facts"]) if record["conditions"] == _conditions(task) else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("the record of a trial is unreadable; it is made again", digest=digest, error=str(error))
            return None

    def note(self, digest: str, task: TrialTask, facts: TrialFacts) -> None:
        """Keeps what was found. Blocking. A disk that is full is no reason not to serve."""
        path = self._path(digest)
        try:
            partial = path.with_suffix(".part")
            partial.write_text(json.dumps({"conditions": _conditions(task), "facts": asdict(facts)}))
            partial.replace(path)
        except OSError as error:
            log.warning("the record of a trial cannot be written", digest=digest, error=str(error))

    def forget_all_but(self, digests: set[str]) -> None:
        """Deletes the records of artifacts that are no longer there. Blocking. Raises OSError."""
        for path in self._folder.iterdir():
            if path.stem not in digests:
                path.unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}.json"


def _conditions(task: TrialTask) -> dict[str, Any]:
    """What another result may come of."""
    conditions = {"runtime": ort.__version__, **asdict(task)}
    for name in ("path", "time_s", "run_s", "memory_bytes"):
        del conditions[name]
    return json.loads(json.dumps(conditions))  # type: ignore[no-any-return]  # tuples as lists, as they come back
