"""`modelyard conformance`: its arguments and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from typer.testing import CliRunner

from modelyard.cli.main import app
from modelyard.cli.output import Exit
from modelyard.conformance.reference import MODELS
from modelyard.conformance.run import choose
from support.moody_server import Mood, moody_server


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["conformance", *arguments])
    return result.exit_code, result.output


def test_a_failure_that_counts_is_exit_code_1() -> None:
    with moody_server() as server:
        # The moody server's ModelMetadata is right but for the platform.
        code, text = invoke(server.address, "--only", "model.metadata_platform")
        assert code == Exit.FAILED
        assert "model.metadata_platform" in text
        assert invoke(server.address, "--only", "model.metadata_platform", "--fail-on", "required")[0] == Exit.OK


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("127.0.0.1:1", "--only", "infer.id", "--timeout", "2"), Exit.UNAVAILABLE),
        (("127.0.0.1:1", "--only", "no-such-check"), Exit.USAGE),
        (("127.0.0.1:1", "--fail-on", "perhaps"), Exit.USAGE),
        (("127.0.0.1:1", "--dim", "x"), Exit.USAGE),
        (("run",), Exit.USAGE),
    ],
)
def test_exit_codes(arguments: tuple[str, ...], code: Exit) -> None:
    assert invoke(*arguments)[0] == code


def test_one_document_for_programs() -> None:
    with moody_server() as server:
        code, text = invoke(server.address, "--only", "server.metadata", "--only", "server.live", "--json")
        assert code == Exit.OK
        assert {one["id"]: one["outcome"] for one in json.loads(text)["results"]} == {
            "server.live": "pass", "server.metadata": "pass",
        }  # fmt: skip
        server.mood = Mood.NOTHING
        assert invoke(server.address, "--only", "server.live")[0] == Exit.FAILED


def test_every_check_is_listed_with_its_rule() -> None:
    code, text = invoke("--list", "--json")
    assert code == Exit.OK
    assert [one["id"] for one in json.loads(text)] == [check.id for check in choose()]


def test_the_reference_models_are_written_for_every_server(tmp_path: Path) -> None:
    code, _ = invoke("models", str(tmp_path))
    assert code == Exit.OK
    for model in MODELS:
        graph = onnx.load(tmp_path / "onnx" / f"{model.full_name}.onnx").graph
        assert [one.name for one in graph.input] == [one.name for one in model.inputs]
        for repository in ("triton", "triton-onnxruntime"):
            assert (
                f'name: "{model.full_name}"' in (tmp_path / repository / model.full_name / "config.pbtxt").read_text()
            )
        settings = json.loads((tmp_path / "mlserver" / model.full_name / "model-settings.json").read_text())
        assert [one["datatype"] for one in settings["inputs"]] == [one.datatype for one in model.inputs]
    for program in ("mlserver/conformance_runtime.py", "kserve/serve.py"):
        compile((tmp_path / program).read_text(), program, "exec")
