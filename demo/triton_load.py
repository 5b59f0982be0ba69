"""Keeps asking a served model with the stock Triton client until standard input closes, and counts.

Every request counts: one that raises is a failed one, with its text. Prints one JSON object at the end:
`{"requests": n, "failed": n, "errors": […], "first_answer": {version: unix time}}`.
"""

import json
import os
import sys
import threading
import time

import numpy as np
import tritonclient.grpc as triton

THREADS = 2


class Tally:
    """What the threads counted."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.requests = 0
        self.errors: list = []
        self.first_answer: dict = {}

    def count(self, version: str, error: str) -> None:
        with self.lock:
            self.requests += 1
            if error:
                self.errors.append(error)
            else:
                self.first_answer.setdefault(version, time.time())


def ask(model: str, row: list, tally: Tally, stop: threading.Event) -> None:
    """One thread: one question after the other, each on a fresh tensor."""
    headers = {"authorization": f"Bearer {os.environ['MODELYARD_TOKEN']}"}
    client = triton.InferenceServerClient(os.environ["MODELYARD_ADDRESS"])
    values = np.asarray([row], dtype=np.float32)
    tensor = triton.InferInput("input", list(values.shape), "FP32")
    tensor.set_data_from_numpy(values)
    while not stop.is_set():
        try:
            version, error = client.infer(model, [tensor], headers=headers).get_response().model_version, ""
        except Exception as failure:  # noqa: BLE001 - the point is to see every failure there is
            version, error = "", str(failure)
        tally.count(version, error)


def main() -> None:
    question = json.loads(sys.stdin.readline())
    tally, stop = Tally(), threading.Event()
    arguments = (question["model"], question["row"], tally, stop)
    threads = [threading.Thread(target=ask, args=arguments) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()
    report = {
        "requests": tally.requests,
        "failed": len(tally.errors),
        "errors": sorted(set(tally.errors))[:5],
        "first_answer": tally.first_answer,
    }
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
