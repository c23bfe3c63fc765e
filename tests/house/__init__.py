"""The rules of the house that a machine can check; `violations(root)` is the way in."""

from tests.house.checks import violations

__all__ = ["violations"]
