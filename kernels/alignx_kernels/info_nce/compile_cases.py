"""Launches of the InfoNCE kernels at N = M = 65536, D = 4096, for `compiled`."""

from collections.abc import Mapping
from typing import NamedTuple

import torch

from ..common.compile_case import CompileCase
from ..common.private_apis import Kernel
from ..common.tiles import Tile
from .kernels_dlogits import dlogits_kernel, stored_dlogits_kernel
from .kernels_merge import finish_kernel, merge_kernel
from .kernels_statistics import statistics_kernel
from .kernels_vectors import norms_kernel, project_kernel
from .tiles import MERGE, STORED, VECTORS, product_tile

_SIZES = dict.fromkeys(("row_start", "row_end", "n", "m", "d", "stride_q", "stride_k", "stride_s"), "i32")
_NORMS = dict.fromkeys(("p_inverse_q", "p_inverse_k"), "*fp32")
_IDS = dict.fromkeys(("p_query_ids", "p_key_ids"), "*i64")
_SUMS = dict.fromkeys(("p_rows", "p_columns", "p_positive"), "*fp32")
_LOG_SUMS = dict.fromkeys(("p_row_lse", "p_column_lse", "p_cotangent", "p_dlogits_scale"), "*fp32")
_TEMPERATURE = {"p_temperature": "*fp32"}


class _Setting(NamedTuple):
    """What the kernels that compute similarities are compiled for."""

    label: str
    dtype: torch.dtype
    size: int  # N = M
    descriptors: bool
    is_exact: bool = False  # fp32 that is not rounded to tf32
    ragged: bool = False  # N and M that are no multiples of 16
    loaded: bool = False  # similarities made by the library's product


_LARGE_BF16 = _Setting("bf16", torch.bfloat16, 65536, True)
_OTHERS = (
    _Setting("bf16 pointers", torch.bfloat16, 65536, False),
    _Setting("bf16 ragged", torch.bfloat16, 65536, True, ragged=True),
    _Setting("bf16 library product", torch.bfloat16, 65536, False, loaded=True),
    _Setting("bf16 small", torch.bfloat16, 1024, False),
    _Setting("tf32", torch.float32, 65536, True),
    _Setting("fp32", torch.float32, 65536, False, is_exact=True),
)
_TRITON_NAMES = {torch.bfloat16: "bf16", torch.float32: "fp32"}


def _product(
    name: str,
    kernel: Kernel,
    extra: Mapping[str, str],
    flags: Mapping[str, bool],
    absent: tuple[str, ...],
    setting: _Setting,
) -> CompileCase:
    """A kernel that computes similarities; `absent` tensors are None at launch."""
    dtype = _TRITON_NAMES[setting.dtype]

    def tile(arch: int) -> Tile:
        return product_tile(
            setting.dtype, setting.size, setting.size, arch, setting.descriptors, setting.is_exact, setting.loaded
        )

    def arguments(arch: int) -> dict[str, str]:
        rows, columns, depth = (tile(arch).blocks[block] for block in ("BLOCK_M", "BLOCK_N", "BLOCK_K"))
        operands = {"queries": f"*{dtype}", "keys": f"*{dtype}"}
        if setting.descriptors and arch >= 90:
            operands = {"queries": f"tensordesc<{dtype}[{rows}, {depth}]>", "keys": f"tensordesc<{dtype}[{columns}, {depth}]>"}
        if setting.loaded:
            operands = {"queries": "*fp32"}
        given = {**operands, **_SIZES, **_NORMS, **_TEMPERATURE, **_IDS, **extra}
        return {name: kind.format(dtype=dtype) for name, kind in given.items() if name not in absent}

    constants: dict[str, object] = {
        "EVEN_D": True,
        "INPUT_PRECISION": "ieee" if setting.is_exact else "tf32",
        "HAS_IDS": "p_query_ids" not in absent,
        **flags,
        **dict.fromkeys((*absent, "keys") if setting.loaded else absent),
    }
    unaligned = frozenset({"row_end", "n", "m"} if setting.ragged else ())
    return CompileCase(
        f"info_nce {name} {setting.label}", kernel, arguments, constants, tile, unaligned, uses_dot=not setting.loaded
    )


def _statistics(name: str, flags: Mapping[str, bool], absent: tuple[str, ...], setting: _Setting) -> CompileCase:
    extra = {**_SUMS, "p_stored": "*{dtype}"}
    return _product(f"statistics {name}", statistics_kernel, extra, flags, absent, setting)


def _dlogits(name: str, columns: bool, absent: tuple[str, ...], setting: _Setting) -> CompileCase:
    extra = {**_LOG_SUMS, "p_dlogits": "*{dtype}"}
    return _product(f"dlogits {name}", dlogits_kernel, extra, {"COLUMNS": columns, "UNIT_QUERIES": False}, absent, setting)


def _products(setting: _Setting) -> list[CompileCase]:
    no_ids = ("p_query_ids", "p_key_ids")
    both = {"COLUMNS": True, "WITH_MEAN": True, "STORE": False}
    one = {"COLUMNS": False, "WITH_MEAN": False, "STORE": True}
    return [
        _statistics("both+ids+mean", both, ("p_stored",), setting),
        _statistics("both", {**both, "WITH_MEAN": False}, ("p_stored", *no_ids), setting),
        _statistics("one+ids+mean+dlogits", {**one, "WITH_MEAN": True}, ("p_columns",), setting),
        _statistics("one+dlogits", one, ("p_columns", *no_ids), setting),
        _statistics("both+ids+mean+dlogits", {**both, "STORE": True}, (), setting),
        _statistics("both+dlogits", {**both, "WITH_MEAN": False, "STORE": True}, no_ids, setting),
        _dlogits("both+ids", True, (), setting),
        _dlogits("both", True, no_ids, setting),
        _dlogits("one+ids", False, ("p_column_lse",), setting),
    ]


CASES = [
    *_products(_LARGE_BF16),
    # Of the others, the two that need most registers.
    *(case for setting in _OTHERS for case in (_products(setting)[4], _products(setting)[6])),
    CompileCase(
        "info_nce norms",
        norms_kernel,
        {
            **_NORMS,
            **dict.fromkeys(("p_queries", "p_keys"), "*bf16"),
            **dict.fromkeys(("n", "m", "d", "stride_q", "stride_k"), "i32"),
        },
        {},
        VECTORS.__getitem__,
    ),
    CompileCase(
        "info_nce merge",
        merge_kernel,
        {**dict.fromkeys(("p_sums", "p_state"), "*fp32"), **dict.fromkeys(("tiles", "length", "stride"), "i32")},
        {"CONTINUE": True, "WITH_MEAN": True},
        MERGE.__getitem__,
    ),
    CompileCase(
        "info_nce finish",
        finish_kernel,
        {
            **_SUMS,
            **_TEMPERATURE,
            **dict.fromkeys(("p_loss", "p_row_lse", "p_column_lse", "p_slope"), "*fp32"),
            **dict.fromkeys(("row_start", "row_end", "row_tiles", "column_tiles"), "i32"),
            "share": "fp32",
        },
        {"COLUMNS": True, "WITH_MEAN": True},
        MERGE.__getitem__,
    ),
    CompileCase(
        "info_nce stored dlogits",
        stored_dlogits_kernel,
        {
            **_NORMS,
            **_TEMPERATURE,
            **_LOG_SUMS,
            **dict.fromkeys(("row_start", "row_end", "n", "m", "stride_s"), "i32"),
            **dict.fromkeys(("p_stored", "p_dlogits"), "*bf16"),
            "p_positive": "*fp32",
        },
        {"COLUMNS": True, "UNIT_QUERIES": False},
        STORED.__getitem__,
    ),
    CompileCase(
        "info_nce project",
        project_kernel,
        {
            **_TEMPERATURE,
            **dict.fromkeys(("p_product_a", "p_product_b", "p_inverse_a", "p_inverse_b", "p_dlogits_scale"), "*fp32"),
            **dict.fromkeys(("p_vectors_a", "p_vectors_b", "p_grad_a", "p_grad_b"), "*bf16"),
            **dict.fromkeys(("rows_a", "rows_b", "d", "stride_a", "stride_b"), "i32"),
            "share": "fp32",
        },
        {"LACKS_INVERSE_A": False},
        VECTORS.__getitem__,
    ),
]
