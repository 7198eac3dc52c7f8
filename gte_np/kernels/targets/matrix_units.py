"""Matrix units: instructions that multiply whole tiles, 16 rows of x with 16 output features at once.

The methods emit code, as those of `dot_products` do. A tile register is named by its number.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

Value = Any  # of LLVM

TILE = 16  # rows of a tile register, and words of a row
UNIT_ROWS = 2 * TILE  # of x that are multiplied together
BFLOAT16_DEPTH = 2 * TILE  # of the values in a row of a tile register


@dataclass(frozen=True)
class MatrixUnit(ABC):
    """Registers of TILE rows of TILE words, and the products of them that it has, by `WeightFormat.tile_product`.

    A register of sums gets the products of 16 rows of x with 16 output features: x is (rows, words), weights are
    (words, features), as they lie in a panel.
    """

    products: ClassVar[Mapping[str, str]]
    rounded: ClassVar[frozenset[str]] = frozenset()  # products whose sums are rounded in an order of the unit's own

    @abstractmethod
    def configure(self, emit: Any) -> None:
        """Make this thread's registers ready."""

    @abstractmethod
    def release(self, emit: Any) -> None:
        """Give them back: the system need not save them any more."""

    @abstractmethod
    def load(self, emit: Any, register: int, pointer: Value, stride: Value) -> None:
        """Read a register; its rows are `stride` words apart, or all the same if that is 0."""

    @abstractmethod
    def store(self, emit: Any, register: int, pointer: Value, stride: Value) -> None:
        """Write a register."""

    @abstractmethod
    def multiply_add(self, emit: Any, product: str, sums: int, x: int, weights: int) -> None:
        """sums += x weights, in registers."""


class Amx(MatrixUnit):
    """Intel's Advanced Matrix Extensions: eight registers.

    The sums of integers are exact. Those of bfloat16 differ in the last bits from the dot products' sums: the
    instruction adds up the first and the second values of 16 words apart, then both, then these to the sum.
    """

    products: ClassVar[Mapping[str, str]] = {"int8": "llvm.x86.tdpbusd", "bfloat16": "llvm.x86.tdpbf16ps"}
    rounded: ClassVar[frozenset[str]] = frozenset({"bfloat16"})

    def configure(self, emit: Any) -> None:
        """All registers of full size: palette 1, the bytes of a row of each, then the rows of each."""
        sizes = [byte for _ in range(8) for byte in (4 * TILE, 0)] + [0] * 16
        record = bytes([1] + [0] * 15 + sizes + [TILE] * 8 + [0] * 8)
        emit.call_instruction("llvm.x86.ldtilecfg", emit.constant_bytes("amx_configuration", record))

    def release(self, emit: Any) -> None:
        """One instruction."""
        emit.call_instruction("llvm.x86.tilerelease")

    def load(self, emit: Any, register: int, pointer: Value, stride: Value) -> None:
        """One instruction."""
        self._move(emit, "llvm.x86.tileloadd64", register, pointer, stride)

    def store(self, emit: Any, register: int, pointer: Value, stride: Value) -> None:
        """One instruction."""
        self._move(emit, "llvm.x86.tilestored64", register, pointer, stride)

    def multiply_add(self, emit: Any, product: str, sums: int, x: int, weights: int) -> None:
        """One instruction."""
        emit.call_instruction(self.products[product], emit.int8(sums), emit.int8(x), emit.int8(weights))

    def _move(self, emit: Any, name: str, register: int, pointer: Value, stride: Value) -> None:
        in_bytes = emit.builder.shl(stride, emit.int64(2))
        emit.call_instruction(name, emit.int8(register), emit.as_bytes(pointer), in_bytes)
