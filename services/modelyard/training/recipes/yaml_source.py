"""YAML as plain data, without the parts that surprise: no tags, no anchors, no key twice."""

from __future__ import annotations

import yaml

from modelyard.core.errors import InvalidFields

MAX_CHARACTERS = 1_000_000


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader, stricter."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuses aliases: nested ones can stand for more data than there is memory, or for themselves."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not allowed", self.get_mark())
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        """Refuses a key that is there twice (PyYAML would silently take the last) or no single value."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "expected a name as key", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is there twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def parse_yaml(text: str, path: str) -> object:
    """The data in `text`; raises InvalidFields for `path` with line and column if it is not YAML."""
    if len(text) > MAX_CHARACTERS:
        raise InvalidFields.one(path, f"expected at most {MAX_CHARACTERS:,} characters, got {len(text):,}")
    try:
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise InvalidFields.one(path, f"not YAML: {where}{error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidFields.one(path, f"not YAML: {error}") from error
