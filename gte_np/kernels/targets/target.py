"""What a target is: the instructions that kernels are compiled for, and the shape of a tile that suits them."""

from __future__ import annotations

from dataclasses import dataclass, field

from gte_np.kernels.targets.dot_products import DotProduct, PlainInt8, WidenedBfloat16
from gte_np.kernels.targets.matrix_units import MatrixUnit

LANES = 16
CACHE_LINE = 64  # bytes


@dataclass(frozen=True)
class Target:
    """A processor, or a family of them, as LLVM knows it.

    `name` is unique; `machine` is "x86_64" or "aarch64"; `cpu` is LLVM's name of a processor that has no more than
    `features`, the instructions that a processor must have to run the kernels, by LLVM's names; `lacking` are those
    that it has not, although `cpu` has them.

    `vector_width` is how many float32 values a register holds. `tile_rows` and `tile_vectors` are the rows and the
    vectors of 16 columns of the tile of a matrix product that stays in registers: its accumulators must leave room
    for a row of weights and one value of x. `has_float16` tells of an instruction that widens float16 to float32.
    `matrix_unit` multiplies tiles where the depth of a product suits it; the dot products then take the same words.
    `bfloat16_pair_product` and `int8_pair_product` multiply many rows, as `gte_np.kernels.operations.row_pairs` says,
    with the sums of the dot products; rows of int8 are in bytes then.
    `pause` is the LLVM intrinsic that a waiting thread calls, with its argument.
    """

    name: str
    machine: str
    cpu: str
    features: frozenset[str]
    vector_width: int
    tile_rows: int
    tile_vectors: int
    has_float16: bool
    pause: tuple[str, int | None]
    bfloat16_dot_product: DotProduct = field(default=WidenedBfloat16(), repr=False)
    int8_dot_product: DotProduct = field(default=PlainInt8(), repr=False)
    matrix_unit: MatrixUnit | None = field(default=None, repr=False)
    bfloat16_pair_product: DotProduct | None = field(default=None, repr=False)
    int8_pair_product: DotProduct | None = field(default=None, repr=False)
    lacking: frozenset[str] = frozenset()

    @property
    def panel(self) -> int:
        """How many output features the packed weights of a tile have."""
        return self.tile_vectors * LANES

    @property
    def feature_list(self) -> str:
        """The features as LLVM wants them."""
        present = [f"+{feature}" for feature in sorted(self.features)]
        return ",".join(present + [f"-{feature}" for feature in sorted(self.lacking)])

    def __str__(self) -> str:
        """All that machine code depends on."""
        tile = f"tiles of {self.tile_rows} x {self.tile_vectors}"
        products = (self.bfloat16_dot_product, self.int8_dot_product, self.matrix_unit)
        in_pairs = (self.bfloat16_pair_product, self.int8_pair_product)
        parts = (self.machine, self.cpu, self.feature_list, tile, *products, *in_pairs)
        return f"{self.name} ({', '.join(map(str, parts))})"

    @property
    def has_fused_multiply_add(self) -> bool:
        """Whether a product and a sum are rounded once."""
        return self.machine != "x86_64" or "fma" in self.features

    def arithmetic(self, tile_product: str | None) -> str:
        """How sums of a format's products are rounded: targets that say the same give the same bits."""
        if self.rounds_in_tiles(tile_product):
            return "numba in tiles"
        if tile_product == "bfloat16" and self.bfloat16_dot_product.rounding:
            return f"numba rounded {self.bfloat16_dot_product.rounding}"
        return "numba" if self.has_fused_multiply_add else "numba without fused multiply-add"

    def multiplies_tiles(self, tile_product: str | None) -> bool:
        """Whether the matrix unit, if there is one, has a format's product."""
        return self.matrix_unit is not None and tile_product in self.matrix_unit.products

    def rounds_in_tiles(self, tile_product: str | None) -> bool:
        """Whether the matrix unit has a format's product, with bits of its own: then attention is its work, too."""
        return self.matrix_unit is not None and tile_product in self.matrix_unit.rounded

    def runs_on(self, machine: str, features: frozenset[str]) -> bool:
        """Whether a processor with these features runs its kernels."""
        return machine == self.machine and self.features <= features
