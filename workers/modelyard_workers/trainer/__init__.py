"""The trainer: a process of its own that trains one job, `python -m modelyard_workers.trainer`.

`--workdir DIR` holds `job.json` and `dataset.json` (proto-JSON of TrainingJob and Dataset) and the file `dataset`. What
happens is written to the file descriptor `--events-fd N`, one TrainingUpdate in proto-JSON per line; what is printed is
for people. At the end DIR holds `result.json` (a FinishTrainingJobRequest with its outcome) and, after a success,
`model.onnx`.

Exit codes: 0 when there is a result, success or failure; 143 when stopped by SIGTERM or left by its parent.
"""

from modelyard.core.telemetry import keep_onnx_runtime_quiet

keep_onnx_runtime_quiet()
