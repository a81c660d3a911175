"""InfoNCE on a GPU: the plan of launches around `info_nce_kernels`.

Rows are taken in chunks, so that neither the sums of tiles nor the slab of d loss / d similarity grow with N x M. The slab is in the
dtype of the inputs; dQ = slab @ K and dK += slab^T @ Q are products of the library with fp32 results. Costs in units of one product
U = 2 * N * M * D: 1 for the loss; one direction with its gradients 3, taken within the forward from the stored exponentials;
otherwise 3 more in the backward, which computes the similarities again. What nobody wants is left out.
"""

import torch
from triton.tools.tensor_descriptor import TensorDescriptor

from . import info_nce_kernels as kernels
from .dispatch import on_device
from .info_nce_problem import Forward, Inputs, Statistics, Wanted, waiting_dtype
from .tiles import (
    INFO_NCE_MERGE,
    INFO_NCE_RESCALE,
    INFO_NCE_VECTORS,
    SLAB_BYTES,
    architecture,
    cdiv,
    info_nce_is_small,
    info_nce_tile,
)

STATISTICS_ROWS = 8192  # a chunk where no slab is stored: its sums take 160 MB at M = 65536
# fp16 ends at 65504 and thins out below 2^-14, so what is stored in it is scaled up to these largest values. bf16 needs none.
FP16_EXPONENTIAL = 2.0**15
FP16_SLAB = 2.0**14


def forward(inputs: Inputs, wanted: Wanted, take_gradients: bool) -> Forward:
    """Losses and statistics; with `take_gradients` (one direction only) also the wanted gradients of queries and keys."""
    with on_device(inputs.keys_MD):
        plan = _Plan(inputs, take_gradients)
        chunks, planes = plan.chunks(), 3 if wanted.temperature else 2
        column_lse_N = torch.empty_like(plan.inverse_q) if inputs.symmetric else None
        slope_N = torch.empty_like(plan.inverse_q) if wanted.temperature else None
        statistics = Statistics(torch.empty_like(plan.inverse_q), plan.inverse_q, plan.inverse_k, column_lse_N)
        result = Forward(torch.empty_like(plan.inverse_q), slope_N, statistics)
        # The sums of columns are known after the last chunk only.
        states = [plan.empty(planes, 1, plan.n) for _ in range(2)] if inputs.symmetric and len(chunks) > 1 else None
        gradients = _Gradients(plan, wanted, None, waiting_dtype(inputs.keys_MD.dtype)) if take_gradients else None
        for start, stop in chunks:
            sums = plan.statistics(start, stop, planes, inputs.symmetric, None if gradients is None else gradients.slab_CM)
            if states is None:
                plan.finish(start, stop, sums[0], sums[1], result)
            else:
                plan.merge(sums[0], states[0][:, 0, start:stop], fresh=True)
                plan.merge(sums[1], states[1], fresh=start == 0)
            if gradients is not None:
                plan.rescale(start, stop, sums[0], statistics.row_lse_N, gradients)
                gradients.add(start, stop)
        if states is not None:
            plan.finish(0, plan.n, states[0], states[1], result)
        return result if gradients is None else Forward(*result[:3], *gradients.taken)


def backward(
    inputs: Inputs, statistics: Statistics, cotangent_N: torch.Tensor, wanted: Wanted
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Gradients at queries and keys of sum_i cotangent_i * loss_i, from similarities computed once more."""
    with on_device(inputs.keys_MD):
        plan = _Plan(inputs, True, statistics)
        cotangent_N = cotangent_N.float().contiguous()
        gradients = _Gradients(plan, wanted, cotangent_N, inputs.keys_MD.dtype)
        for start, stop in plan.chunks():
            plan.slab(start, stop, statistics, cotangent_N, gradients)
            gradients.add(start, stop)
        return gradients.taken


class _Plan:
    """One problem's sizes, launch settings and norms, and a method per kernel."""

    def __init__(self, inputs: Inputs, slab: bool, known: Statistics | None = None):
        self.queries_ND, self.keys_MD = (_rows_contiguous(x) for x in (inputs.queries_ND, inputs.keys_MD))
        self.temperature = inputs.temperature.contiguous()
        self.ids = tuple(ids if ids is None else ids.contiguous() for ids in (inputs.query_ids, inputs.key_ids))
        (self.n, self.d), self.m = self.queries_ND.shape, self.keys_MD.shape[0]
        self.strides = self.queries_ND.stride(0), self.keys_MD.stride(0)
        arch = architecture(self.keys_MD.device)
        large = not info_nce_is_small(self.n, self.m)
        use_descriptors = arch >= 90 and large and all(map(_describable, (self.queries_ND, self.keys_MD)))
        self.tile = info_nce_tile(self.keys_MD.dtype, self.n, self.m, arch, use_descriptors)
        self.operands = (self.queries_ND, self.keys_MD)
        if use_descriptors:
            blocks = (self.block_m, self.tile.blocks["BLOCK_K"]), (self.block_n, self.tile.blocks["BLOCK_K"])
            self.operands = tuple(
                TensorDescriptor.from_tensor(x, list(block)) for x, block in zip(self.operands, blocks, strict=True)
            )
        self.vectors, self.merging, self.rescaling = INFO_NCE_VECTORS[arch], INFO_NCE_MERGE[arch], INFO_NCE_RESCALE[arch]
        row_bytes = self.m * self.keys_MD.element_size()
        rows = SLAB_BYTES[arch] // row_bytes if slab else STATISTICS_ROWS
        self.chunk = min(self.n, max(1, rows // self.block_m) * self.block_m)
        self.fp16 = self.keys_MD.dtype == torch.float16
        if known is None:
            self.inverse_q, self.inverse_k = self.norms()
            self.positive_N = torch.empty_like(self.inverse_q)
        else:
            self.inverse_q, self.inverse_k = known.inverse_N, known.inverse_M

    @property
    def block_m(self) -> int:
        return self.tile.blocks["BLOCK_M"]

    @property
    def block_n(self) -> int:
        return self.tile.blocks["BLOCK_N"]

    def empty(self, *shape: int) -> torch.Tensor:
        return self.keys_MD.new_empty(shape, dtype=torch.float32)

    def chunks(self):
        return [(start, min(start + self.chunk, self.n)) for start in range(0, self.n, self.chunk)]

    def tiles(self, start: int, stop: int) -> tuple[int, int]:
        return cdiv(stop - start, self.block_m), cdiv(self.m, self.block_n)

    def norms(self) -> tuple[torch.Tensor, torch.Tensor]:
        inverse_q, inverse_k = self.empty(self.n), self.empty(self.m)
        kernels.norms_kernel[(self.groups(self.n) + self.groups(self.m),)](
            self.queries_ND, self.keys_MD, inverse_q, inverse_k, self.n, self.m, self.d, *self.strides, **self.vectors.options
        )
        return inverse_q, inverse_k

    def groups(self, rows: int) -> int:
        """Programs over so many vectors."""
        return cdiv(rows, self.vectors.blocks["BLOCK_R"])

    def statistics(self, start: int, stop: int, planes: int, columns: bool, slab_CM: torch.Tensor | None):
        """Partial sums of rows [planes, column parts, C] and columns [planes, row tiles, N]; fills the slab if there is one."""
        tiles_m, tiles_n = self.tiles(start, stop)
        row_sums = self.empty(planes, tiles_n * (self.block_n // kernels.PART.value), stop - start)
        column_sums = self.empty(planes, tiles_m, self.n) if columns else None
        kernels.statistics_kernel[(tiles_m * tiles_n,)](
            *self.operands, self.inverse_q, self.inverse_k, self.temperature, *self.ids, row_sums, column_sums,
            self.positive_N, slab_CM, start, stop, self.n, self.m, self.d, *self.strides, self.stored_scale,
            **self._products(), COLUMNS=columns, WITH_MEAN=planes == 3, STORE=slab_CM is not None,
        )  # fmt: skip
        return row_sums, column_sums

    def merge(self, sums: torch.Tensor, state: torch.Tensor, fresh: bool) -> None:
        """Into `state` [planes, length] or [planes, 1, length]."""
        planes, tiles, length = sums.shape
        kernels.merge_kernel[(cdiv(length, self.merging.blocks["BLOCK_L"]),)](
            sums, state, tiles, length, state.stride(0), CONTINUE=not fresh, WITH_MEAN=planes == 3, **self.merging.options
        )

    def finish(self, start: int, stop: int, rows: torch.Tensor, columns: torch.Tensor | None, result: Forward) -> None:
        kernels.finish_kernel[(cdiv(stop - start, self.merging.blocks["BLOCK_L"]),)](
            rows, columns, self.positive_N, self.temperature, result.loss_N, result.statistics.row_lse_N, result.statistics.column_lse_N,
            result.slope_N, start, stop, rows.shape[1], 0 if columns is None else columns.shape[1],
            COLUMNS=columns is not None, WITH_MEAN=rows.shape[0] == 3, **self.merging.options,
        )  # fmt: skip

    def rescale(self, start: int, stop: int, row_sums: torch.Tensor, row_lse_N: torch.Tensor, gradients: "_Gradients") -> None:
        block_m, block_t = (self.rescaling.blocks[name] for name in ("BLOCK_M", "BLOCK_T"))
        kernels.rescale_kernel[(cdiv(stop - start, block_m), cdiv(self.m, block_t * kernels.PART.value))](
            gradients.slab_CM, row_sums, row_lse_N, self.positive_N, self.inverse_q, self.inverse_k, gradients.scale, start, stop, self.n,
            self.m, row_sums.shape[1], self.stored_scale, **self.rescaling.options,
        )  # fmt: skip

    def slab(self, start: int, stop: int, known: Statistics, cotangent_N: torch.Tensor, gradients: "_Gradients") -> None:
        tiles_m, tiles_n = self.tiles(start, stop)
        kernels.slab_kernel[(tiles_m * tiles_n,)](
            *self.operands, self.inverse_q, self.inverse_k, self.temperature, *self.ids, known.row_lse_N, known.column_lse_N,
            cotangent_N, gradients.scale, gradients.slab_CM, start, stop, self.n, self.m, self.d, *self.strides,
            **self._products(), COLUMNS=known.column_lse_N is not None,
        )  # fmt: skip

    def project(self, scale: torch.Tensor, *sides: tuple[torch.Tensor, ...]) -> None:
        """For one or two sides of (raw, vectors, inverse norms, gradient to be written)."""
        first, second = sides[0], sides[-1]
        rows = first[0].shape[0], second[0].shape[0] if len(sides) == 2 else 0
        kernels.project_kernel[(sum(map(self.groups, rows)),)](
            *first, *second, self.temperature, scale, *rows, self.d, first[1].stride(0), second[1].stride(0), **self.vectors.options
        )  # fmt: skip

    @property
    def stored_scale(self) -> float:
        return FP16_EXPONENTIAL if self.fp16 else 1.0

    def _products(self) -> dict:
        """Arguments common to both kernels that work out similarities."""
        return {
            **self.tile.options,
            "EVEN_D": self.d % self.tile.blocks["BLOCK_K"] == 0,
            "INPUT_PRECISION": "ieee" if self.keys_MD.dtype == torch.float32 else "tf32",
            "HAS_IDS": self.ids[0] is not None,
        }


class _Gradients:
    """Gathers the wanted gradients from one slab after another."""

    def __init__(self, plan: _Plan, wanted: Wanted, cotangent_N: torch.Tensor | None, dtype: torch.dtype):
        self.plan, self.dtype = plan, dtype
        keys_MD = plan.keys_MD
        self.slab_CM = keys_MD.new_empty(plan.chunk, plan.m)
        self.scale = self._slab_scale(cotangent_N)
        self.queries_ND = keys_MD.new_empty((plan.n, plan.d), dtype=dtype) if wanted.queries else None
        self.raw_CD = plan.empty(plan.chunk, plan.d) if wanted.queries else None
        self.raw_MD = plan.empty(plan.m, plan.d) if wanted.keys else None
        self.taken: tuple[torch.Tensor | None, torch.Tensor | None] = self.queries_ND, None

    def add(self, start: int, stop: int) -> None:
        """The slab of these rows is ready; after the last of them the gradients are `taken`."""
        plan, slab_CM, sides = self.plan, _part(self.slab_CM, 0, stop - start), []
        queries_CD = _part(plan.queries_ND, start, stop)
        if self.raw_CD is not None and self.queries_ND is not None:
            raw_CD = _part(self.raw_CD, 0, stop - start)
            multiply(slab_CM, plan.keys_MD, raw_CD, accumulate=False)
            sides.append((raw_CD, queries_CD, _part(plan.inverse_q, start, stop), _part(self.queries_ND, start, stop)))
        if self.raw_MD is not None:
            multiply(slab_CM.T, queries_CD, self.raw_MD, accumulate=start > 0)
            if stop == plan.n:
                del self.slab_CM, slab_CM  # no longer needed: room for the gradient
                grad_MD = self.raw_MD if self.dtype == torch.float32 else torch.empty_like(self.raw_MD, dtype=self.dtype)
                sides.append((self.raw_MD, plan.keys_MD, plan.inverse_k, grad_MD))
                self.taken = self.queries_ND, grad_MD
        if sides:
            plan.project(self.scale, *sides)

    def _slab_scale(self, cotangent_N: torch.Tensor | None) -> torch.Tensor:
        """What the slab is multiplied by: 1, or for fp16 what brings its largest possible entry to `FP16_SLAB`."""
        plan = self.plan
        if not plan.fp16:
            return torch.ones_like(plan.temperature)
        largest = plan.inverse_q.amax() * plan.inverse_k.amax()
        if cotangent_N is not None:
            largest = largest * cotangent_N.abs().amax()
        return torch.where(largest == 0, 1, FP16_SLAB / largest)


def multiply(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor, accumulate: bool) -> None:
    """out = a @ b, or out += a @ b, in fp32 from start to end."""
    if a.dtype == torch.float32 or not a.is_cuda:  # on a CPU (Triton's interpreter) PyTorch has no mixed product
        torch.addmm(out, a.float(), b.float(), beta=float(accumulate), out=out)
    elif accumulate:
        torch.addmm(out, a, b, out_dtype=torch.float32, out=out)
    else:
        torch.mm(a, b, out_dtype=torch.float32, out=out)


def _part(tensor: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    # All of them without a view: six of those cost a small problem as much as half a launch.
    return tensor if stop - start == tensor.shape[0] else tensor[start:stop]


def _rows_contiguous(vectors_XD: torch.Tensor) -> torch.Tensor:
    return vectors_XD if vectors_XD.stride(1) == 1 else vectors_XD.contiguous()


def _describable(vectors_XD: torch.Tensor) -> bool:
    """Whether the copy engine can read it: 16-bit elements, rows that start at multiples of 16 bytes and do not overlap."""
    apart, row_bytes = vectors_XD.stride(0) >= vectors_XD.shape[1] > 0, vectors_XD.stride(0) * vectors_XD.element_size()
    return apart and vectors_XD.element_size() == 2 and row_bytes % 16 == 0 and vectors_XD.data_ptr() % 16 == 0
