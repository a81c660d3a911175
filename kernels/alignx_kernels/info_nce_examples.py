"""Launches of the InfoNCE kernels at N = M = 65536, D = 4096, for `compiled`."""

import torch

from . import info_nce_kernels as kernels
from .tiles import (
    INFO_NCE_MERGE,
    INFO_NCE_RESCALE,
    INFO_NCE_VECTORS,
    Example,
    Tile,
    info_nce_tile,
)

_SIZES = dict.fromkeys(("row_start", "row_end", "n", "m", "d", "stride_q", "stride_k"), "i32")
_NORMS = dict.fromkeys(("p_inverse_q", "p_inverse_k"), "*fp32")
_IDS = dict.fromkeys(("p_query_ids", "p_key_ids"), "*i64")
_SUMS = dict.fromkeys(("p_rows", "p_columns", "p_positive"), "*fp32")
_LOG_SUMS = dict.fromkeys(("p_row_lse", "p_column_lse", "p_cotangent", "p_slab_scale"), "*fp32")
_TEMPERATURE = {"p_temperature": "*fp32"}


def _product(name, kernel, extra: dict[str, str], flags: dict[str, bool], absent: tuple[str, ...], case) -> Example:
    """A kernel that works out similarities; `absent` tensors are None at launch."""
    label, dtype, torch_dtype, precision, size, descriptors = case

    def tile(arch: int) -> Tile:
        return info_nce_tile(torch_dtype, size, size, arch, descriptors)

    def arguments(arch: int) -> dict[str, str]:
        rows, columns, depth = (tile(arch).blocks[block] for block in ("BLOCK_M", "BLOCK_N", "BLOCK_K"))
        operands = {"queries": f"*{dtype}", "keys": f"*{dtype}"}
        if descriptors and arch >= 90:
            operands = {"queries": f"tensordesc<{dtype}[{rows}, {depth}]>", "keys": f"tensordesc<{dtype}[{columns}, {depth}]>"}
        given = {**operands, **_SIZES, **_NORMS, **_TEMPERATURE, **_IDS, "p_slab": f"*{dtype}", **extra}
        return {name: kind for name, kind in given.items() if name not in absent}

    has_ids = "p_query_ids" not in absent
    constants = {"EVEN_D": True, "INPUT_PRECISION": precision, "HAS_IDS": has_ids, **flags, **dict.fromkeys(absent)}
    return Example(f"info_nce {name} {label}", kernel, arguments, constants, tile, uses_dot=True)


def _products(case) -> list[Example]:
    sums, plain = {**_SUMS, "slab_scale": "fp32"}, ("p_query_ids", "p_key_ids")
    both = {"COLUMNS": True, "WITH_MEAN": True, "STORE": False}
    one = {"COLUMNS": False, "WITH_MEAN": False, "STORE": True}
    statistics, slab = kernels.statistics_kernel, kernels.slab_kernel
    return [
        _product("statistics both+ids+mean", statistics, sums, both, ("p_slab",), case),
        _product("statistics both", statistics, sums, {**both, "WITH_MEAN": False}, ("p_slab", *plain), case),
        _product("statistics one+ids+mean+slab", statistics, sums, {**one, "WITH_MEAN": True}, ("p_columns",), case),
        _product("statistics one+slab", statistics, sums, one, ("p_columns", *plain), case),
        _product("slab both+ids", slab, _LOG_SUMS, {"COLUMNS": True}, (), case),
        _product("slab both", slab, _LOG_SUMS, {"COLUMNS": True}, plain, case),
        _product("slab one+ids", slab, _LOG_SUMS, {"COLUMNS": False}, ("p_column_lse",), case),
    ]


_LARGE_BF16 = ("bf16", "bf16", torch.bfloat16, "tf32", 65536, True)
_OTHERS = (
    ("bf16 pointers", "bf16", torch.bfloat16, "tf32", 65536, False),
    ("bf16 small", "bf16", torch.bfloat16, "tf32", 1024, False),
    ("fp32", "fp32", torch.float32, "ieee", 65536, False),
)

EXAMPLES = [
    *_products(_LARGE_BF16),
    # Of the others, the two that need the most registers.
    *(example for case in _OTHERS for example in (_products(case)[2], _products(case)[4])),
    Example(
        "info_nce norms",
        kernels.norms_kernel,
        {
            **_NORMS,
            **dict.fromkeys(("p_queries", "p_keys"), "*bf16"),
            **dict.fromkeys(("n", "m", "d", "stride_q", "stride_k"), "i32"),
        },
        {},
        INFO_NCE_VECTORS.__getitem__,
    ),
    Example(
        "info_nce merge",
        kernels.merge_kernel,
        {**dict.fromkeys(("p_sums", "p_state"), "*fp32"), **dict.fromkeys(("tiles", "length", "stride"), "i32")},
        {"CONTINUE": True, "WITH_MEAN": True},
        INFO_NCE_MERGE.__getitem__,
    ),
    Example(
        "info_nce finish",
        kernels.finish_kernel,
        {
            **_SUMS,
            **_TEMPERATURE,
            **dict.fromkeys(("p_loss", "p_row_lse", "p_column_lse", "p_slope"), "*fp32"),
            **dict.fromkeys(("row_start", "row_end", "row_tiles", "column_tiles"), "i32"),
        },
        {"COLUMNS": True, "WITH_MEAN": True},
        INFO_NCE_MERGE.__getitem__,
    ),
    Example(
        "info_nce rescale",
        kernels.rescale_kernel,
        {
            **_NORMS,
            **dict.fromkeys(("p_sums", "p_row_lse", "p_positive", "p_slab_scale"), "*fp32"),
            **dict.fromkeys(("row_start", "row_end", "n", "m", "tiles"), "i32"),
            "p_slab": "*bf16",
            "stored_scale": "fp32",
        },
        {},
        INFO_NCE_RESCALE.__getitem__,
    ),
    Example(
        "info_nce project",
        kernels.project_kernel,
        {
            **_TEMPERATURE,
            **dict.fromkeys(("p_raw_a", "p_raw_b", "p_inverse_a", "p_inverse_b", "p_slab_scale"), "*fp32"),
            **dict.fromkeys(("p_vectors_a", "p_vectors_b", "p_grad_a", "p_grad_b"), "*bf16"),
            **dict.fromkeys(("rows_a", "rows_b", "d", "stride_a", "stride_b"), "i32"),
        },
        {},
        INFO_NCE_VECTORS.__getitem__,
    ),
]
