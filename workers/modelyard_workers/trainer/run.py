"""One job from its folder to its result, in the order in which it happens."""

from __future__ import annotations

import hashlib
import platform
import traceback
from importlib import metadata

from modelyard.training import check_spec
from modelyard.v1.training_job_pb2 import TrainingJob
from modelyard.v1.training_spec_pb2 import TASK_CLASSIFICATION
from modelyard.v1.worker_service_pb2 import FinishTrainingJobRequest, TrainedArtifact

from .assignment import Assignment
from .checkpoint_file import Origin
from .evaluation import check_gates, evaluate
from .export import export_onnx
from .failures import failure_of, is_foreseen
from .fitting import fit
from .hardware import choose_device
from .parity import check_parity
from .resuming import CheckpointPlan
from .splits import split_rows
from .stopping import Stopped, StopRequest
from .tables import read_table
from .update_stream import UpdateStream, say

LIBRARIES = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")
OUTPUTS = {TASK_CLASSIFICATION: "logits"}


def run_job(assignment: Assignment, updates: UpdateStream, stop: StopRequest) -> None:
    """Runs the job and leaves its result, success or failure, in its folder; raises Stopped without one."""
    try:
        result = FinishTrainingJobRequest(succeeded=_produce(assignment, updates, stop))
    except (Stopped, BrokenPipeError):
        raise
    except Exception as error:  # noqa: BLE001  # whatever it was, the parent must hear of it
        if not is_foreseen(error):
            traceback.print_exc()
        result = FinishTrainingJobRequest(failed=failure_of(error))
        say(f"failed: {result.failed.message}")
    stop.check()
    assignment.write_result(result)


def _produce(assignment: Assignment, updates: UpdateStream, stop: StopRequest) -> TrainedArtifact:
    dataset = assignment.dataset()
    job = assignment.job()
    checked = check_spec(job.spec, dataset, "spec")
    spec, plan = checked.spec, checked.plan
    table = read_table(assignment.dataset_file, dataset, checked)
    parts = split_rows(table, spec.split)
    say(
        f"{len(table):,} rows: {len(parts.training):,} to train on, {len(parts.validation):,} for validation, "
        f"{len(parts.test):,} to test with"
    )
    device = choose_device()
    stop.check()

    updates.state(TrainingJob.STATE_RUNNING)
    checkpoints = CheckpointPlan(
        origin=Origin(checked.digest, dataset.digest, job.name),
        resume_from=assignment.checkpoint_file,
        folder=assignment.checkpoints,
        interval_s=assignment.checkpoint_interval_s(),
    )
    served = fit(checked, table, parts, device, updates, stop, checkpoints)
    stop.check()

    updates.state(TrainingJob.STATE_EVALUATING)
    evaluation = evaluate(served, table, parts, spec)
    updates.evaluation(evaluation)
    check_gates(evaluation, spec.publication.gates)
    stop.check()

    updates.state(TrainingJob.STATE_EXPORTING)
    content = export_onnx(served, plan.input_shape, OUTPUTS.get(spec.task, "prediction"))
    parity = check_parity(content, served, table.features)
    say(
        f"exported {len(content):,} bytes; ONNX Runtime agrees with PyTorch on {parity.rows:,} rows to "
        f"{parity.max_relative_error:.1e} of the value"
    )
    assignment.write_model(content)
    return TrainedArtifact(
        digest=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        evaluation=evaluation,
        parity=parity,
        library_versions=_library_versions(),
    )


def _library_versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in LIBRARIES}
