"""The wrapper that numbers, headers and other PHI travel in: it prints as [hidden] and must be opened on purpose."""

from __future__ import annotations

from typing import Generic, NoReturn, TypeVar

T = TypeVar("T", str, bytes)


class Hidden(Generic[T]):
    """A value people must not see by accident: prints, formats and logs as [hidden]; `reveal()` is deliberate."""

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value: T = value

    def reveal(self) -> T:
        return self._value

    def __repr__(self) -> str:
        return "[hidden]"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "[hidden]"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Hidden):
            return NotImplemented
        return bool(self._value == other._value)

    def __hash__(self) -> int:
        return hash((Hidden, self._value))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a hidden value is not pickled")
