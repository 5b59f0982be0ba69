"""Training specs as people write them: YAML with short names, and two that come with the package.

A recipe has the fields of `modelyard.v1.TrainingSpec` under their names in the proto or in proto-JSON, and these short
forms (see the recipes beside this file):

* enum values without their prefix, in any case: `task: regression`;
* `network.layers` for `network.layer_list.layers`;
* a layer without settings as its bare name: `- flatten`, and an activation as its own: `- relu`;
* an optimiser without settings as a key without a value: `adam:`.
"""

from importlib.resources import files

from modelyard.core.errors import InvalidFields
from modelyard.core.names import shorten
from modelyard.v1.training_spec_pb2 import TrainingSpec

from .reading import ROOT, load_recipe

__all__ = ["builtin_recipe", "builtin_recipe_names", "load_recipe", "recipe_text"]

_SUFFIX = ".yaml"


def builtin_recipe_names() -> list[str]:
    """The recipes that come with the package, sorted."""
    entries = (entry.name for entry in files(__name__).iterdir())
    return sorted(name.removesuffix(_SUFFIX) for name in entries if name.endswith(_SUFFIX))


def recipe_text(name: str) -> str:
    """The YAML of a built-in recipe; raises InvalidFields if there is none of that name."""
    if name not in builtin_recipe_names():
        raise InvalidFields.one(ROOT, f"expected one of {', '.join(builtin_recipe_names())}, got {shorten(name)!r}")
    return files(__name__).joinpath(name + _SUFFIX).read_text(encoding="utf-8")


def builtin_recipe(name: str) -> TrainingSpec:
    """The spec of a built-in recipe; raises InvalidFields if there is none of that name."""
    return load_recipe(recipe_text(name))
