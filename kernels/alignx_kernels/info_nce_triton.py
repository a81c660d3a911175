"""InfoNCE on a GPU: the plan of launches around `info_nce_kernels`.

Rows are taken in chunks, so that neither the sums of tiles nor the slab of d loss / d similarity grow with N x M. The slab is in the
dtype of the inputs; dQ = slab @ K and dK += slab^T @ Q are products of the library with fp32 results. Costs in units of one product
U = 2 * N * M * D: 1 for the loss; one direction with its gradients 3, taken within the forward from the stored exponentials;
otherwise 3 more in the backward, which computes the similarities again. What nobody wants is left out.
"""

import torch
import triton
from triton.tools.tensor_descriptor import TensorDescriptor

from . import info_nce_kernels as kernels
from .dispatch import on_device
from .info_nce_problem import Forward, Inputs, Wanted, waiting_dtype
from .tiles import INFO_NCE_MERGE, INFO_NCE_RESCALE, INFO_NCE_ROWS, INFO_NCE_VECTORS, SLAB_BYTES, architecture, info_nce_tile

STATISTICS_ROWS = 8192  # a chunk where no slab is stored: its sums take 160 MB at M = 65536
# fp16 ends at 65504 and thins out below 2^-14, so what is stored in it is scaled up to these largest values. bf16 needs none.
FP16_EXPONENTIAL = 2.0**15
FP16_SLAB = 2.0**14


def forward(inputs: Inputs, wanted: Wanted, take_gradients: bool) -> Forward:
    """Losses and statistics; with `take_gradients` (one direction only) also the wanted gradients of queries and keys."""
    with on_device(inputs.keys_MD):
        plan = _Plan(inputs, slab=take_gradients)
        planes = 3 if wanted.temperature else 2
        rows = plan.empty(planes, plan.n)
        columns = plan.empty(planes, plan.n) if inputs.symmetric else None
        gradients = _Gradients(plan, wanted, None, waiting_dtype(inputs.keys_MD.dtype)) if take_gradients else None
        for start, stop in plan.chunks():
            sums = plan.statistics(start, stop, planes, columns is not None, None if gradients is None else gradients.slab_CM)
            plan.merge(sums[0], rows[:, start:stop], plan.n, fresh=True)
            if columns is not None:
                plan.merge(sums[1], columns, plan.n, fresh=start == 0)
            if gradients is not None:
                plan.rescale(start, stop, sums[0], rows, gradients)
                gradients.add(start, stop)
        return plan.finish(rows, columns, (None, None) if gradients is None else gradients.finish())


def backward(
    inputs: Inputs, row_lse_N: torch.Tensor, column_lse_N: torch.Tensor | None, cotangent_N: torch.Tensor, wanted: Wanted
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Gradients at queries and keys of sum_i cotangent_i * loss_i, from similarities computed once more."""
    with on_device(inputs.keys_MD):
        plan = _Plan(inputs, slab=True)
        cotangent_N = cotangent_N.float().contiguous()
        gradients = _Gradients(plan, wanted, cotangent_N, inputs.keys_MD.dtype)
        for start, stop in plan.chunks():
            plan.slab(start, stop, row_lse_N, column_lse_N, cotangent_N, gradients)
            gradients.add(start, stop)
        return gradients.finish()


class _Plan:
    """One problem's sizes, launch settings and norms, and a method per kernel."""

    def __init__(self, inputs: Inputs, slab: bool):
        self.queries_ND, self.keys_MD = (_rows_contiguous(x) for x in (inputs.queries_ND, inputs.keys_MD))
        self.temperature = inputs.temperature.contiguous()
        self.ids = tuple(ids if ids is None else ids.contiguous() for ids in (inputs.query_ids, inputs.key_ids))
        (self.n, self.d), self.m = self.queries_ND.shape, self.keys_MD.shape[0]
        arch = architecture(self.keys_MD.device)
        use_descriptors = arch >= 90 and all(map(_describable, (self.queries_ND, self.keys_MD)))
        self.tile = info_nce_tile(self.keys_MD.dtype, self.n, self.m, arch, use_descriptors)
        self.operands = (self.queries_ND, self.keys_MD)
        if use_descriptors:
            blocks = (self.block_m, self.tile.blocks["BLOCK_K"]), (self.block_n, self.tile.blocks["BLOCK_K"])
            self.operands = tuple(
                TensorDescriptor.from_tensor(x, list(block)) for x, block in zip(self.operands, blocks, strict=True)
            )
        self.vectors, self.rows = INFO_NCE_VECTORS[arch], INFO_NCE_ROWS[arch]
        self.merging, self.rescaling = INFO_NCE_MERGE[arch], INFO_NCE_RESCALE[arch]
        row_bytes = self.m * self.keys_MD.element_size()
        rows = SLAB_BYTES[arch] // row_bytes if slab else STATISTICS_ROWS
        self.chunk = min(self.n, max(1, rows // self.block_m) * self.block_m)
        self.fp16 = self.keys_MD.dtype == torch.float16
        self.inverse_q, self.inverse_k = self.norms(self.queries_ND), self.norms(self.keys_MD)
        self.positive_N = self.empty(self.n)

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
        return triton.cdiv(stop - start, self.block_m), triton.cdiv(self.m, self.block_n)

    def norms(self, vectors_XD: torch.Tensor) -> torch.Tensor:
        inverse_X = self.empty(len(vectors_XD))
        kernels.norms_kernel[(triton.cdiv(len(vectors_XD), self.vectors.blocks["BLOCK_R"]),)](
            vectors_XD, inverse_X, *vectors_XD.shape, vectors_XD.stride(0), **self.vectors.options
        )
        return inverse_X

    def statistics(self, start: int, stop: int, planes: int, columns: bool, slab_CM: torch.Tensor | None):
        """Partial sums of rows [planes, column parts, C] and columns [planes, row tiles, N]; fills the slab if there is one."""
        tiles_m, tiles_n = self.tiles(start, stop)
        row_sums = self.empty(planes, tiles_n * (self.block_n // kernels.PART.value), stop - start)
        column_sums = self.empty(planes, tiles_m, self.n) if columns else None
        kernels.statistics_kernel[(tiles_m * tiles_n,)](
            *self.operands, self.inverse_q, self.inverse_k, self.temperature, *self.ids, row_sums, column_sums,
            self.positive_N, slab_CM, start, stop, self.n, self.m, self.d, self.queries_ND.stride(0), self.keys_MD.stride(0), self.stored_scale,
            **self._products(), COLUMNS=columns, WITH_MEAN=planes == 3, STORE=slab_CM is not None,
        )  # fmt: skip
        return row_sums, column_sums

    def merge(self, sums: torch.Tensor, state: torch.Tensor, stride: int, fresh: bool) -> None:
        """Into `state` [planes, length], whose planes are `stride` apart."""
        planes, tiles, length = sums.shape
        kernels.merge_kernel[(triton.cdiv(length, self.merging.blocks["BLOCK_L"]),)](
            sums, state, tiles, length, stride, CONTINUE=not fresh, WITH_MEAN=planes == 3, **self.merging.options
        )

    def finish(
        self, rows: torch.Tensor, columns: torch.Tensor | None, gradients: tuple[torch.Tensor | None, torch.Tensor | None]
    ) -> Forward:
        with_mean = len(rows) == 3
        loss, row_lse = self.empty(self.n), self.empty(self.n)
        column_lse = None if columns is None else self.empty(self.n)
        slope = self.empty(self.n) if with_mean else None
        kernels.finish_kernel[(triton.cdiv(self.n, self.rows.blocks["BLOCK_L"]),)](
            rows, columns, self.positive_N, self.temperature, loss, row_lse, column_lse, slope, self.n,
            COLUMNS=columns is not None, WITH_MEAN=with_mean, **self.rows.options,
        )  # fmt: skip
        return Forward(loss, *gradients, row_lse, column_lse, slope)

    def rescale(self, start: int, stop: int, row_sums: torch.Tensor, rows: torch.Tensor, gradients: "_Gradients") -> None:
        block_m, block_t = (self.rescaling.blocks[name] for name in ("BLOCK_M", "BLOCK_T"))
        kernels.rescale_kernel[(triton.cdiv(stop - start, block_m), triton.cdiv(self.m, block_t * kernels.PART.value))](
            gradients.slab_CM, row_sums, rows, self.positive_N, self.inverse_q, self.inverse_k, gradients.scale, start, stop, self.n,
            self.m, row_sums.shape[1], self.stored_scale, **self.rescaling.options,
        )  # fmt: skip

    def slab(
        self,
        start: int,
        stop: int,
        row_lse_N: torch.Tensor,
        column_lse_N: torch.Tensor | None,
        cotangent_N: torch.Tensor,
        gradients: "_Gradients",
    ) -> None:
        tiles_m, tiles_n = self.tiles(start, stop)
        kernels.slab_kernel[(tiles_m * tiles_n,)](
            *self.operands, self.inverse_q, self.inverse_k, self.temperature, *self.ids, row_lse_N, column_lse_N,
            cotangent_N, gradients.scale, gradients.slab_CM, start, stop, self.n, self.m, self.d, self.queries_ND.stride(0),
            self.keys_MD.stride(0), **self._products(), COLUMNS=column_lse_N is not None,
        )  # fmt: skip

    def project(self, raw: torch.Tensor, vectors: torch.Tensor, inverse: torch.Tensor, scale: torch.Tensor, grad: torch.Tensor):
        kernels.project_kernel[(triton.cdiv(len(raw), self.vectors.blocks["BLOCK_R"]),)](
            raw, vectors, inverse, self.temperature, scale, grad, *raw.shape, vectors.stride(0), **self.vectors.options
        )

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

    def add(self, start: int, stop: int) -> None:
        """The slab of these rows is ready."""
        plan, slab_CM = self.plan, self.slab_CM[: stop - start]
        if self.raw_CD is not None and self.queries_ND is not None:
            raw_CD = self.raw_CD[: stop - start]
            multiply(slab_CM, plan.keys_MD, raw_CD, accumulate=False)
            rows = slice(start, stop)
            plan.project(raw_CD, plan.queries_ND[rows], plan.inverse_q[rows], self.scale, self.queries_ND[rows])
        if self.raw_MD is not None:
            multiply(slab_CM.T, plan.queries_ND[start:stop], self.raw_MD, accumulate=start > 0)

    def finish(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        if self.raw_MD is None:
            return self.queries_ND, None
        grad_MD = self.raw_MD if self.dtype == torch.float32 else torch.empty_like(self.raw_MD, dtype=self.dtype)
        del self.slab_CM  # no longer needed: room for the gradient
        self.plan.project(self.raw_MD, self.plan.keys_MD, self.plan.inverse_k, self.scale, grad_MD)
        return self.queries_ND, grad_MD

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


def _rows_contiguous(vectors_XD: torch.Tensor) -> torch.Tensor:
    return vectors_XD if vectors_XD.stride(1) == 1 else vectors_XD.contiguous()


def _describable(vectors_XD: torch.Tensor) -> bool:
    """Whether the copy engine can read it: 16-bit elements, rows that start at multiples of 16 bytes and do not overlap."""
    apart, row_bytes = vectors_XD.stride(0) >= vectors_XD.shape[1] > 0, vectors_XD.stride(0) * vectors_XD.element_size()
    return apart and vectors_XD.element_size() == 2 and row_bytes % 16 == 0 and vectors_XD.data_ptr() % 16 == 0
