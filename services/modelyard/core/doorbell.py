"""What gateway and workers agree on when the gateway rings: one Celery task, one argument.

The message carries a job's name and nothing else. Losing it, doubling it or ringing for a job that somebody else has
already taken does no harm: the worker asks the gateway for the job (`WorkerService.ClaimTrainingJob`), and the job's
row decides. Neither side imports the other; the gateway sends by name:

    celery.send_task(TASK_NAME, args=[job_name], queue=celery_queue("cpu"), ignore_result=True)
"""

from __future__ import annotations

TASK_NAME = "modelyard.training.doorbell"
"""Name of the Celery task. Its one positional argument is the job's resource name, `trainingJobs/{training_job}`."""

DEFAULT_QUEUE = "cpu"
"""The queue of workers without an accelerator. One queue per class of hardware; the order in it is the database's."""

QUEUE_PATTERN = r"[a-z][a-z0-9-]{0,62}"
"""What a queue may be called, as a regular expression for the whole name."""


def celery_queue(queue: str) -> str:
    """The name in Celery, which is a key in Redis, of the queue `queue`."""
    return f"modelyard.{queue}"
