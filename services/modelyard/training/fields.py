"""Where in a request a check stands, and what it found there."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from google.protobuf.descriptor import EnumDescriptor

from modelyard.core.errors import InvalidFields, Violations


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a request, by its path from the root; what is wrong with it goes into the shared `violations`."""

    violations: Violations
    path: str

    def child(self, name: str) -> Field:
        """A field of this message."""
        return Field(self.violations, f"{self.path}.{name}" if self.path else name)

    def item(self, index: int) -> Field:
        """An entry of this list."""
        return Field(self.violations, f"{self.path}[{index}]")

    def reject(self, description: str) -> None:
        """Notes that the field is wrong."""
        self.violations.add(self.path, description)

    def check(self, condition: bool, description: str) -> bool:
        """Notes that the field is wrong unless `condition` holds; answers the condition."""
        return self.violations.check(condition, self.path, description)

    def within(self, value: float, least: float, greatest: float) -> bool:
        """`least` <= value <= `greatest`; not a number is never within."""
        return self.check(
            least <= value <= greatest, f"expected {number(least)} to {number(greatest)}, got {number(value)}"
        )

    def fraction(self, value: float) -> bool:
        """Above 0 and below 1."""
        return self.check(0 < value < 1, f"expected a number above 0 and below 1, got {number(value)}")

    def positive(self, value: float) -> bool:
        """Above 0 and finite."""
        return self.check(0 < value < math.inf, f"expected a finite number above 0, got {number(value)}")

    def not_negative(self, value: float) -> bool:
        """0 or above and finite."""
        return self.check(0 <= value < math.inf, f"expected a finite number, 0 or above, got {number(value)}")

    def parses(self, parse: Callable[[str, str], object], value: str) -> bool:
        """Whether `parse(value, path)` accepts the value; its InvalidFields is noted, not raised."""
        try:
            parse(value, self.path)
        except InvalidFields as error:
            self.violations.found.extend(error.violations)
            return False
        return True

    def chosen(self, enum: EnumDescriptor, value: int) -> bool:
        """A value of `enum` that is known and not the unspecified one."""
        names = short_names(enum)
        came = f"got the unknown value {value}" if value else "nothing was given"
        return self.check(value in names, f"expected one of {', '.join(names.values())}; {came}")


def short_names(enum: EnumDescriptor) -> Mapping[int, str]:
    """The values of `enum` without the unspecified one, and their names without the enum's prefix."""
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return {value.number: value.name.removeprefix(prefix) for value in enum.values if value.number != 0}


def number(value: float) -> str:
    """For messages: `1,000,000`, `0.5`, `nan`."""
    return f"{value:,}" if isinstance(value, int) and abs(value) < 10**15 else f"{value:g}"


def shape_text(shape: tuple[int, ...]) -> str:
    """For messages: `[1, 8, 8]`."""
    return str(list(shape))
