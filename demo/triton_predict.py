"""Asks a served model with the stock Triton client; knows nothing of Modelyard.

Runs in a virtual environment of its own: `tritonclient` stands for any program that speaks to Triton today. Reads
`{"model": …, "input": …, "output": …, "rows": [[…]]}` from standard input, writes the answer as JSON.
"""

import json
import os
import sys

import numpy as np
import tritonclient.grpc as triton


def main() -> None:
    question = json.load(sys.stdin)
    headers = {"authorization": f"Bearer {os.environ['MODELYARD_TOKEN']}"}
    client = triton.InferenceServerClient(os.environ["MODELYARD_ADDRESS"])
    rows = np.asarray(question["rows"], dtype=np.float32)
    tensor = triton.InferInput(question["input"], list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows)
    result = client.infer(question["model"], [tensor], headers=headers)
    config = client.get_model_config(question["model"], headers=headers, as_json=True)["config"]
    parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
    answer = {
        "version": result.get_response().model_version,
        "values": result.as_numpy(question["output"]).tolist(),
        "parameters": parameters,
    }
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
