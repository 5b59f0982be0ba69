"""Generates Python from `protos/`. The result is committed; `--check` fails when it no longer fits the sources.

Two ways, for one reason each:

* `modelyard.v1` becomes ordinary modules beside the services, in protobuf's default pool.
* `inference` (the Open Inference Protocol) becomes a descriptor set that `modelyard.oip` loads into a pool of its own:
  the stock Triton client defines the same message names, and one pool cannot hold both.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import shutil
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
SERVICES = ROOT / "services"
# Messages and gRPC classes by grpcio-tools, their typed stubs (with the comments as docstrings) by mypy-protobuf.
PLUGINS = ("python_out=", "grpc_python_out=", "mypy_out=quiet:", "mypy_grpc_out=quiet:")
WELL_KNOWN = str(files("grpc_tools") / "_proto")


def run_protoc(*arguments: str) -> None:
    """Runs protoc with our sources and protobuf's own on the path, and this environment's plugins."""
    os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    if protoc.main(["protoc", f"--proto_path={PROTOS}", f"--proto_path={WELL_KNOWN}", *arguments]) != 0:
        sys.exit("protoc failed; its message is above")


def generate(target: Path) -> None:
    """Writes all generated files under `target`, laid out as in `services/`."""
    public = sorted(str(path) for path in (PROTOS / "modelyard/v1").glob("*.proto"))
    run_protoc(*(f"--{plugin}{target}" for plugin in PLUGINS), *public)
    for module in target.glob("modelyard/v1/*_pb2_grpc.py"):
        if "class " not in module.read_text():  # protoc writes an empty one for a file without a service
            module.unlink()
            module.with_suffix(".pyi").unlink(missing_ok=True)
    (target / "modelyard/v1/__init__.py").write_text('"""Generated from `protos/modelyard/v1` by `make protos`."""\n')
    generate_inference(target)


def generate_inference(target: Path) -> None:
    """Writes the Open Inference Protocol's descriptor set and its type stub into `modelyard/oip`.

    It is one source file, so that its stub imports no sibling whose path would have to be rewritten.
    """
    source = str(PROTOS / "inference/open_inference.proto")
    package = target / "modelyard/oip"
    package.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        run_protoc(f"--descriptor_set_out={package / 'descriptors.binpb'}", f"--mypy_out=quiet:{scratch}", source)
        shutil.copy(Path(scratch) / "inference/open_inference_pb2.pyi", package)


def generated_files(target: Path) -> list[Path]:
    """Every generated file below `target`, relative to it."""
    patterns = ("modelyard/v1/*.py", "modelyard/v1/*.pyi", "modelyard/oip/*_pb2.pyi", "modelyard/oip/descriptors.binpb")
    return sorted(path.relative_to(target) for pattern in patterns for path in target.glob(pattern))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if the committed code is stale")
    check = parser.parse_args().check
    # protoc looks for its plugins on PATH; they stand beside this interpreter, also when its venv is not activated.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch)
        generate(fresh)
        wanted, present = generated_files(fresh), generated_files(SERVICES)
        stale = [
            name
            for name in sorted({*wanted, *present})
            if name not in wanted
            or name not in present
            or not filecmp.cmp(fresh / name, SERVICES / name, shallow=False)
        ]
        if check and stale:
            sys.exit("stale generated code, run `make protos`:\n" + "\n".join(f"  {name}" for name in stale))
        if check:
            return
        for name in present:
            (SERVICES / name).unlink()
        for name in wanted:
            (SERVICES / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(fresh / name, SERVICES / name)


if __name__ == "__main__":
    main()
