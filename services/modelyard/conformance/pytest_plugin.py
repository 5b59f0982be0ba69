"""The checks under pytest: options for the server, one test for each check.

    pytest -p modelyard.conformance.pytest_plugin --pyargs modelyard.conformance.suite --server HOST:PORT --model NAME

Nothing loads it unasked. A check that the server or the model cannot show is skipped with its reason; a failure of a
recommended check is an expected one (xfail) unless `--conformance-fail-on recommended` is given.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .probe import Probe, Target
from .registry import Level
from .run import choose, greet


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of `modelyard conformance` that say what to check."""
    group = parser.getgroup("conformance", "conformance to the Open Inference Protocol")
    group.addoption("--server", default="", help="host:port of the server's gRPC")
    group.addoption("--model", default=Target("").model, help="the model to check with")
    group.addoption("--model-version", default="", help="its version")
    group.addoption("--token", default="", help="a bearer token for every call")
    group.addoption("--tls", action="store_true", help="speak TLS")
    group.addoption("--conformance-only", action="append", default=[], help="only these checks, as in refused.*")
    group.addoption("--conformance-skip", action="append", default=[], help="all but these checks")
    group.addoption(
        "--conformance-fail-on", default=Level.TRITON.value, choices=[level.value for level in Level],
        help="the weakest level whose failures count",
    )  # fmt: skip


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each chosen check."""
    if "conformance_check" in metafunc.fixturenames:
        only, skip = (metafunc.config.getoption(f"--conformance-{option}") for option in ("only", "skip"))
        checks = choose(only, skip)
        metafunc.parametrize("conformance_check", checks, ids=[check.id for check in checks])


@pytest.fixture(scope="session")
def conformance_probe(pytestconfig: pytest.Config) -> Iterator[Probe]:
    """A probe of the server that the options name."""
    address = pytestconfig.getoption("--server")
    if not address:
        raise pytest.UsageError("--server HOST:PORT says which server to check")
    target = Target(
        address,
        pytestconfig.getoption("--model"),
        pytestconfig.getoption("--model-version"),
        token=pytestconfig.getoption("--token"),
        tls=pytestconfig.getoption("--tls"),
    )
    with Probe(target) as probe:
        greet(probe)
        yield probe


@pytest.fixture(scope="session")
def conformance_strictest(pytestconfig: pytest.Config) -> Level:
    """The weakest level whose failures count."""
    return Level(pytestconfig.getoption("--conformance-fail-on"))
