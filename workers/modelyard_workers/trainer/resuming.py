"""Where a training begins: at a checkpoint if there is one that can be used, else at the first step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from .checkpoint_file import CheckpointUnusable, Origin, read_checkpoint
from .loop import TrainingState
from .snapshots import differences, restore_snapshot
from .update_stream import say


@dataclass(frozen=True, slots=True)
class CheckpointPlan:
    """A job's checkpoints: where they come from and where they go."""

    origin: Origin
    resume_from: Path
    """The file to go on from; there need not be one."""
    folder: Path
    """Where new ones are put. Made when it is needed."""
    interval_s: float
    """The least time from one to the next; 0: only when the training is stopped."""


def begin_or_resume(begin: Callable[[], TrainingState], plan: CheckpointPlan, device: torch.device) -> TrainingState:
    """The state to train on from; `begin` makes that before the first step.

    A checkpoint that cannot be used costs a line in the log and the time to do its steps again, never the result.
    """
    state = begin()
    if not plan.resume_from.exists():
        return state
    try:
        checkpoint = read_checkpoint(plan.resume_from, plan.origin)
        restore_snapshot(state, checkpoint)
    except CheckpointUnusable as error:
        say(f"the checkpoint is not used: {error}; the training begins anew")
        return begin()
    say(f"going on from the checkpoint after step {state.step:,}; epochs done: {state.epoch:,}")
    changed = differences(checkpoint, device)
    if changed:
        say(f"the checkpoint is from elsewhere ({'; '.join(changed)}): weights may differ in their last bits")
    return state
