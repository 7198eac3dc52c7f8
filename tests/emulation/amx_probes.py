"""Probes: small assembly programs that use AMX, each with its memory before and afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.emulation import amx_arithmetic

Bytes = NDArray[np.uint8]

# A probe gets the address of its memory in rdi. There its parts are:
CONFIG, STORED, OUT, SUMS, LEFT, RIGHT = 0, 64, 1024, 2048, 3072, 4096
SOURCE, SIZE = 16384, 32768  # rows of any distance, forwards and backwards, around the middle
NO_BASE = 0x10000000  # an address of 32 bits, where the programs' process must have mapped a page

REGISTERS = ("rax", "rcx", "rdx", "rbx", "rbp", "rsi", "rdi", *(f"r{number}" for number in range(8, 16)))
SAVED_REGISTERS = ("rbx", "rbp", "r12", "r13", "r14", "r15")
TYPES: dict[str, tuple[Any, Any]] = {
    "tdpbssd": (np.int8, np.int8),
    "tdpbsud": (np.int8, np.uint8),
    "tdpbusd": (np.uint8, np.int8),
    "tdpbuud": (np.uint8, np.uint8),
}
MNEMONICS = ("ldtilecfg", "sttilecfg", "tile", "tdp")
SHAPES = ((16, 16, 16), (1, 1, 1), (16, 1, 5), (3, 16, 2), (7, 13, 16), (5, 4, 11))  # rows, columns, depth


@dataclass(frozen=True)
class Probe:
    """A program, its memory (SIZE,) before and afterwards, where all NaNs at OUT are equal if it computes floats."""

    name: str
    lines: tuple[str, ...]
    memory: Bytes
    expected: Bytes
    has_floats: bool = False

    @property
    def instructions(self) -> int:
        """How many of AMX's instructions it performs."""
        return sum(line.startswith(MNEMONICS) for line in self.lines)

    def check(self, memory: Bytes) -> None:
        """Compare memory (SIZE,) with what is expected."""
        found, expected = memory.copy(), self.expected.copy()
        for values in (found, expected) if self.has_floats else ():
            floats = values[OUT : OUT + 1024].view(np.float32)
            floats[np.isnan(floats)] = np.nan
        np.testing.assert_array_equal(found, expected, self.name)


def assembly(probes: list[Probe], *, trap_first: bool) -> str:
    """C with a function for each probe; with `trap_first` an illegal instruction precedes each of AMX's."""
    lines = [".text"]
    for probe in probes:
        lines += [f".globl {probe.name}", f"{probe.name}:", *(f"push %{name}" for name in SAVED_REGISTERS)]
        for line in probe.lines:
            lines += ["ud2", line] if trap_first and line.startswith(MNEMONICS) else [line]
        lines += [*(f"pop %{name}" for name in reversed(SAVED_REGISTERS)), "ret"]
    return "\n".join(f'__asm__("{line}\\n");' for line in lines) + "\n"


def all_probes() -> list[Probe]:
    """Every instruction: all ways to address memory, odd shapes, random and special numbers."""
    random = np.random.default_rng(20)
    return [*configurations(random), *addresses(random), *products_of_bytes(random), *products_of_bfloat16(random)]


def configuration(**shapes: tuple[int, int]) -> Bytes:
    """What LDTILECFG reads, (64,), for tiles t0 to t7 of so many rows, and elements of four bytes a row."""
    config = np.zeros(64, np.uint8)
    config[0] = 1
    for name, (rows, elements) in shapes.items():
        tile = int(name[1:])
        config[16 + 2 * tile], config[48 + tile] = 4 * elements, rows
    return config


def random_memory(random: np.random.Generator, config: Bytes) -> Bytes:
    """Random bytes behind a configuration, (SIZE,)."""
    memory = random.integers(0, 256, SIZE, np.uint8)
    memory[CONFIG : CONFIG + 64] = config
    return memory


def rows_at(memory: Bytes, start: int, shape: tuple[int, int], stride: int = 64) -> Bytes:
    """The rows of a tile in memory, (rows, 4 elements), to be read and written."""
    rows, elements = shape
    return np.lib.stride_tricks.as_strided(memory[start:], (rows, 4 * elements), (stride, 1))


def store(tile: int, start: int = OUT) -> tuple[str, str]:
    """Instructions that store a tile, rows 64 bytes apart; rdi must hold the memory's address."""
    return "mov $64, %rax", f"tilestored %tmm{tile}, {start}(%rdi,%rax)"


def load(tile: int, start: int) -> tuple[str, str]:
    """Instructions that load a tile, likewise."""
    return "mov $64, %rax", f"tileloadd {start}(%rdi,%rax), %tmm{tile}"


def configurations(random: np.random.Generator) -> Iterator[Probe]:
    """Configurations, read and written through several addresses, and what they do to tiles."""
    config = configuration(t0=(16, 16), t3=(5, 3), t7=(1, 1))
    memory = random_memory(random, config)
    expected = memory.copy()
    expected[STORED : STORED + 64] = config
    expected[STORED + 64 : STORED + 128] = 0
    stored = ("sttilecfg 64(%rdi)", "tilerelease", "mov %rdi, %r13", "mov $16, %r8", "sttilecfg 64(%r13,%r8,4)")
    yield Probe("configuration_stored", ("ldtilecfg (%rdi)", *stored), memory, expected)
    word = ", ".join(map(str, memory[CONFIG : CONFIG + 64]))
    data = (".data", "configuration_here:", f".byte {word}", ".text", "ldtilecfg configuration_here(%rip)")
    lines = ("lea 192(%rdi), %r12", "sttilecfg -128(%r12)", "tilerelease", "sttilecfg 128(%rdi)")
    yield Probe("configuration_beside_the_program", (*data, *lines), memory, expected)

    zeros = memory.copy()
    for tile, shape in ((0, (16, 16)), (3, (5, 3))):
        rows_at(zeros, OUT + 1024 * tile, shape)[:] = 0
    stores = (*store(0), *store(3, OUT + 3072), "tilerelease")
    loads = (*load(0, SUMS), *load(3, LEFT))
    yield Probe("tilezero", ("ldtilecfg (%rdi)", *loads, "tilezero %tmm0", "tilezero %tmm3", *stores), memory, zeros)
    twice = ("ldtilecfg (%rdi)", *loads, "ldtilecfg (%rdi)", *stores)
    yield Probe("configuring_makes_zeros", twice, memory, zeros)
    released = ("ldtilecfg (%rdi)", *loads, "tilerelease", "ldtilecfg (%rdi)", *stores)
    yield Probe("releasing_makes_zeros", released, memory, zeros)


def addresses(random: np.random.Generator) -> Iterator[Probe]:
    """Tiles moved through every register as base and as index, scales, displacements, and without base or index."""
    for number, base in enumerate(REGISTERS):
        index, scale, tile = REGISTERS[(number + 7) % 15], 1 << number % 4, number % 8
        instruction = ("tileloadd", "tileloaddt1", "tilestored")[number // 3 % 3]
        displacement = (0, -64, 0x12345)[number % 3]
        stride = (64, -72, 200, 128)[number % 4]
        operand = f"{displacement}(%{base},%{index},{scale})"
        into = (f"lea {SOURCE - displacement}(%rdi), %{base}", f"mov ${stride // scale}, %{index}")
        yield moved(random, instruction, operand, into, tile, stride)
    for instruction in ("tileloadd", "tileloaddt1"):
        yield moved(random, instruction, f"{SOURCE}(%rdi)", (), 2, 0)
    # A stack that holds tiles, as that of a function which runs out of them.
    copy = ("sub $5120, %rsp", f"lea {SOURCE}(%rdi), %rsi", "lea 1024(%rsp), %rdi", "mov $1024, %ecx", "rep movsb")
    for instruction, place in (("tileloadd", "1024(%rsp,%rbx)"), ("tileloaddt1", "1024(%rsp,%rbx,1)")):
        yield moved(random, instruction, place, (*copy, "mov $64, %rbx"), 4, 64, ("add $5120, %rsp",))
    far = (f"lea {SOURCE}(%rdi), %rsi", f"mov ${NO_BASE + 32}, %rdi", "mov $1024, %ecx", "rep movsb")
    yield moved(random, "tileloadd", f"{NO_BASE + 32}(,%rdx,2)", (*far, "mov $32, %rdx"), 5, 64)


def moved(
    random: np.random.Generator,
    instruction: str,
    operand: str,
    into: tuple[str, ...],
    tile: int,
    stride: int,
    behind: tuple[str, ...] = (),
) -> Probe:
    """A tile moved between SOURCE, through the operand, and a plain place; `into` are the operand's registers."""
    shape = (int(random.integers(2, 17)), int(random.integers(1, 17)))
    memory = random_memory(random, configuration(**{f"t{tile}": shape}))
    expected = memory.copy()
    lines: tuple[str, ...] = ("ldtilecfg (%rdi)",)
    if instruction == "tilestored":
        rows, stored = rows_at(memory, LEFT, shape), rows_at(expected, SOURCE, shape, stride)
        for row in range(shape[0]):
            stored[row] = rows[row]
        lines += (*load(tile, LEFT), "push %rdi", *into, f"tilestored %tmm{tile}, {operand}", *behind, "pop %rdi")
    else:
        rows_at(expected, OUT, shape)[:] = rows_at(memory, SOURCE, shape, stride)
        lines += ("push %rdi", *into, f"{instruction} {operand}, %tmm{tile}", *behind, "pop %rdi", *store(tile))
    name = f"{instruction}_" + "".join(letter if letter.isalnum() else "_" for letter in operand)
    return Probe(name, (*lines, "tilerelease"), memory, expected)


def products_of_bytes(random: np.random.Generator) -> Iterator[Probe]:
    """Random bytes and random sums, which wrap around."""
    for instruction, (left_type, right_type) in TYPES.items():
        for number, (rows, columns, depth) in enumerate(SHAPES):
            tiles = (number % 8, (number + 3) % 8, (number + 5) % 8)
            memory, lines = product(random, instruction, tiles, (rows, columns, depth))
            sums = rows_at(memory, SUMS, (rows, columns)).copy().view(np.int32)
            left = rows_at(memory, LEFT, (rows, depth)).copy().view(left_type).reshape(rows, depth, 4)
            right = rows_at(memory, RIGHT, (depth, columns)).copy().view(right_type).reshape(depth, columns, 4)
            expected = memory.copy()
            products = amx_arithmetic.byte_products(sums, left, right)
            rows_at(expected, OUT, (rows, columns))[:] = products.view(np.uint8)
            yield Probe(f"{instruction}_{rows}_{columns}_{depth}", lines, memory, expected)


def product(
    random: np.random.Generator, instruction: str, tiles: tuple[int, int, int], shape: tuple[int, int, int]
) -> tuple[Bytes, tuple[str, ...]]:
    """Random memory and a program that multiplies: tiles of sums, left and right; rows, columns and depth."""
    rows, columns, depth = shape
    sums, left, right = tiles
    config = configuration(**{f"t{sums}": (rows, columns), f"t{left}": (rows, depth), f"t{right}": (depth, columns)})
    loads = (*load(sums, SUMS), *load(left, LEFT), *load(right, RIGHT))
    # In AT&T's order the first of the sources is the last but one.
    multiply = f"{instruction} %tmm{right}, %tmm{left}, %tmm{sums}"
    lines = ("ldtilecfg (%rdi)", *loads, multiply, *store(sums), "tilerelease")
    return random_memory(random, config), lines


def products_of_bfloat16(random: np.random.Generator) -> Iterator[Probe]:
    """Numbers of every kind, in every shape; see `NUMBERS`."""
    for kind, numbers in NUMBERS.items():
        for number, (rows, columns, depth) in enumerate(SHAPES):
            memory, lines = product(random, "tdpbf16ps", (number, number + 1, number + 2), (rows, columns, depth))
            sums, left, right = numbers(random)
            for start, values in ((SUMS, sums), (LEFT, left), (RIGHT, right)):
                memory[start : start + 1024] = np.frombuffer(values.tobytes(), np.uint8)
            left, right = left[:rows, : 2 * depth], right[:depth, : 2 * columns]
            products = amx_arithmetic.bfloat16_products(
                sums[:rows, :columns], left.reshape(rows, depth, 2), right.reshape(depth, columns, 2)
            )
            expected = memory.copy()
            rows_at(expected, OUT, (rows, columns))[:] = np.ascontiguousarray(products).view(np.uint8)
            name = f"tdpbf16ps_{kind}_{rows}_{columns}_{depth}"
            yield Probe(name, lines, memory, expected, has_floats=True)


def bits(values: Any) -> NDArray[np.uint16]:
    """The upper halves of float32: bits of bfloat16."""
    return (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def plain(random: np.random.Generator) -> tuple[Any, Any, Any]:
    """Numbers like a model's: sums, left and right, as are all those of `NUMBERS`."""
    left, right = random.standard_normal((2, 16, 32))
    return random.standard_normal((16, 16), np.float32), bits(left), bits(right)


def wide(random: np.random.Generator) -> tuple[Any, Any, Any]:
    """Exponents far apart, so that roundings show the order of additions, and whether products are rounded."""
    left, right = random.standard_normal((2, 16, 32)) * np.exp2(random.integers(-15, 15, (2, 16, 32)))
    return random.standard_normal((16, 16), np.float32), bits(left), bits(right)


def tiny(random: np.random.Generator) -> tuple[Any, Any, Any]:
    """Products and sums around the smallest normal number."""
    left, right = random.standard_normal((2, 16, 32)) * np.exp2(random.integers(-68, -58, (2, 16, 32)))
    sums = random.standard_normal((16, 16)) * np.exp2(random.integers(-130, -120, (16, 16)))
    return sums.astype(np.float32), bits(left), bits(right)


def just_tiny(random: np.random.Generator) -> tuple[Any, Any, Any]:
    """The smallest normal number and tiny products: what 24 bits would round to it is not flushed."""
    left, right = np.zeros((2, 16, 32))
    left[:, :2], right[0] = random.choice([-1, 1], (16, 2)) * 2.0**-63, 2.0**-63
    left[:, 2:] = random.choice([-1, 1], (16, 30)) * np.exp2(random.integers(-78, -74, (16, 30)))
    left[:, 2:] *= 1 + random.integers(0, 128, (16, 30)) / 128
    right[1:] = (1 + random.integers(0, 128, (15, 32)) / 128) * np.exp2(random.integers(-76, -74, (15, 32)))
    left[:, 1::2] *= random.random((16, 16)) < 0.5
    return np.zeros((16, 16), np.float32), bits(left), bits(right)


def huge(random: np.random.Generator) -> tuple[Any, Any, Any]:
    """Products and sums near the largest number, and beyond."""
    left, right = random.standard_normal((2, 16, 32)) * np.exp2(random.integers(55, 64, (2, 16, 32)))
    sums = random.standard_normal((16, 16)) * np.exp2(random.integers(118, 126, (16, 16)))
    return sums.astype(np.float32), bits(left), bits(right)


def cancelling(random: np.random.Generator) -> tuple[Any, Any, Any]:
    """Every product twice, with both signs, in a random order."""
    left = random.standard_normal((16, 16)).repeat(2, 1)
    left = left * np.tile([1, -1], 16)
    order = random.permutation(32)
    right = np.exp2(random.integers(-1, 2, (1, 32))).repeat(16, 0)
    return np.zeros((16, 16), np.float32), bits(left[:, order]), bits(right)


def special(random: np.random.Generator) -> tuple[Any, Any, Any]:
    """Zeros, denormals, infinities, quiet and signalling NaNs among a few others; the NaNs are rare."""
    numbers = [0x0000, 0x8000, 0x0001, 0x807F, 0x0080, 0x8080, 0x3F80, 0xBF81, 0x7F7F, 0xFF7F, 0x2000, 0x1FFF] * 8
    numbers += [0x7F80, 0xFF80, 0x7F81, 0xFFA2, 0x7FC3, 0xFFC4]
    left, right = random.choice(np.array(numbers, np.uint16), (2, 16, 32))
    sums = random.choice(np.array(numbers, np.uint32), (16, 16)) << 16 | random.integers(0, 3, (16, 16), np.uint32)
    return sums.view(np.float32), left, right


def any_bits(random: np.random.Generator) -> tuple[Any, Any, Any]:
    """Any bits at all."""
    left, right = random.integers(0, 1 << 16, (2, 16, 32), np.uint16)
    return random.integers(0, 1 << 32, (16, 16), np.uint32).view(np.float32), left, right


NUMBERS: dict[str, Callable[[np.random.Generator], tuple[Any, Any, Any]]] = {
    function.__name__: function for function in (plain, wide, tiny, just_tiny, huge, cancelling, special, any_bits)
}
