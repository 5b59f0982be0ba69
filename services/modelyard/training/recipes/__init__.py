"""Training specs as people write them: YAML with short names, and two that come with the package.

A recipe has the fields of `modelyard.v1.TrainingSpec` under their names in the proto or in proto-JSON, and these short
forms (see the recipes beside this file):

* enum values without their prefix, in any case: `task: regression`;
* `network.layers` for `network.layer_list.layers`;
* a layer without settings as its bare name: `- flatten`, and an activation as its own: `- relu`;
* an optimiser without settings as a key without a value: `adam:`.
"""

from importlib.resources import files
from pathlib import Path

from modelyard.core.errors import InvalidFields
from modelyard.core.names import shorten
from modelyard.v1.training_spec_pb2 import TrainingSpec

from .reading import ROOT, load_recipe

__all__ = ["builtin_text", "load_builtin", "load_file", "load_recipe", "names"]

_SUFFIX = ".yaml"


def names() -> list[str]:
    """The recipes that come with the package, sorted."""
    entries = (entry.name for entry in files(__name__).iterdir())
    return sorted(name.removesuffix(_SUFFIX) for name in entries if name.endswith(_SUFFIX))


def builtin_text(name: str) -> str:
    """The YAML of a built-in recipe; raises InvalidFields if there is none of that name."""
    if name not in names():
        raise InvalidFields.one(ROOT, f"expected one of {', '.join(names())}, got {shorten(name)!r}")
    return files(__name__).joinpath(name + _SUFFIX).read_text(encoding="utf-8")


def load_builtin(name: str) -> TrainingSpec:
    """The spec of a built-in recipe; raises InvalidFields if there is none of that name."""
    return load_recipe(builtin_text(name))


def load_file(path: Path) -> TrainingSpec:
    """The spec in a YAML or JSON file; raises InvalidFields as `load_recipe` does, and OSError if it cannot be read."""
    try:
        return load_recipe(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidFields.one(ROOT, f"expected text in UTF-8; byte {error.start:,} is not") from error
