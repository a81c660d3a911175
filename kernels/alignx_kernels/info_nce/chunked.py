"""InfoNCE in bounded memory with plain PyTorch: runs on any device and in fp64, and never stores N x M.

Rows are taken in chunks whose similarities [C, M] stay near 8 MB, so that the passes over them run in cache. Costs, in units of
one product U = 2 * N * M * D: 1 for the loss, 1 for dQ and 1 for dK. In both directions, and under one cotangent per row, gradients
wait until all rows are done: similarities beyond `KEPT_ELEMENTS` are then computed again, at most 1 more.

Shape legend: N queries, M keys, D hidden width, C rows of a chunk, K rows whose similarities are kept, X rows of either side.
"""

from collections.abc import Iterator

import torch

from .problem import LEFT_OUT, ForwardResult, Inputs, Options, Statistics, Wanted, accumulator_dtype, saved_gradient_dtype

CHUNK_ELEMENTS = 2 << 20
# Similarities that are kept until all log-sums are known: 64 MB in fp32.
KEPT_ELEMENTS = 16 << 20


def keeps_all(n: int, m: int) -> bool:
    """Whether N x M similarities may be kept."""
    return n * m <= KEPT_ELEMENTS


def forward(inputs: Inputs, options: Options) -> ForwardResult:
    """Losses and statistics, and the gradients or the kept similarities that `options` ask for."""
    queries_ND, symmetric, wanted = inputs.queries_ND, inputs.symmetric, options.wanted
    n = queries_ND.shape[0]
    share = options.share(n)
    products = _Products(inputs, inverse_norms(queries_ND), inverse_norms(inputs.keys_MD))
    loss_N, row_lse_N = products.keys_MD.new_empty(n), products.keys_MD.new_empty(n)
    positive_N = torch.empty_like(loss_N)
    row_mean_N = torch.empty_like(loss_N) if wanted.temperature else None
    columns = _ColumnSums(loss_N, wanted.temperature) if symmetric else None
    gradients = None
    if options.forward_computes_gradients:
        gradients = _Gradients(products, wanted, saved_gradient_dtype(inputs.keys_MD.dtype))
    kept_KM = products.allocate_kept(options)

    for rows, scaled_CD, logits_CM in products.chunks(kept_KM, is_filled=False):
        is_kept = kept_KM is not None and rows.stop <= kept_KM.shape[0]
        positive_N[rows] = logits_CM.diagonal(rows.start)
        if columns is not None:
            columns.add(logits_CM[:, :n])
        maximum_C1 = logits_CM.amax(1, keepdim=True)
        untouched_CM = None if row_mean_N is None else logits_CM if is_kept else logits_CM.clone()
        weights_CM = torch.empty_like(logits_CM) if is_kept else logits_CM
        total_C1 = torch.sub(logits_CM, maximum_C1, out=weights_CM).exp_().sum(1, keepdim=True)
        row_lse_N[rows] = (maximum_C1 + total_C1.log())[:, 0]
        if row_mean_N is not None and untouched_CM is not None:
            row_mean_N[rows] = torch.linalg.vecdot(weights_CM, untouched_CM) / total_C1[:, 0]
        if gradients is not None and not symmetric:
            weights_CM.diagonal(rows.start).sub_(total_C1[:, 0])
            gradients.add(rows, scaled_CD, weights_CM, share / total_C1)

    torch.sub(row_lse_N, positive_N, out=loss_N)
    mean_N, column_lse_N = row_mean_N, None
    if columns is not None:
        column_lse_N, column_mean_N = columns.finish()
        loss_N.add_(column_lse_N - positive_N).mul_(0.5)
        if mean_N is not None and column_mean_N is not None:
            mean_N = (mean_N + column_mean_N) / 2
    slope_N = None if mean_N is None else (positive_N - mean_N) * (share / products.temperature)
    statistics = Statistics(row_lse_N, products.inverse_N, products.inverse_M, column_lse_N)
    if gradients is None:
        if kept_KM is not None:
            statistics = statistics._replace(positive_N=positive_N, kept_NX=kept_KM)
        return ForwardResult(loss_N, slope_N, statistics)
    if symmetric:
        cotangent_N = torch.full_like(loss_N, share)
        for rows, scaled_CD, logits_CM in products.chunks(kept_KM, is_filled=True):
            gradients.add(rows, scaled_CD, _to_dlogits(logits_CM, rows, statistics, cotangent_N), None)
    return ForwardResult(loss_N, slope_N, statistics, *gradients.finish())


def backward(
    inputs: Inputs, statistics: Statistics, cotangent_N: torch.Tensor, wanted: Wanted
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Gradients at queries and keys of sum_i cotangent_i * loss_i, from kept similarities or from such that are computed again."""
    products = _Products(inputs, statistics.inverse_N, statistics.inverse_M)
    gradients = _Gradients(products, wanted, inputs.keys_MD.dtype)
    cotangent_N = cotangent_N.to(products.keys_MD.dtype)
    for rows, scaled_CD, logits_CM in products.chunks(statistics.kept_NX, is_filled=True):
        own_CM = logits_CM if statistics.kept_NX is None else logits_CM.clone()  # a backward may come again
        gradients.add(rows, scaled_CD, _to_dlogits(own_CM, rows, statistics, cotangent_N), None)
    return gradients.finish()


def _to_dlogits(logits_CM: torch.Tensor, rows: slice, statistics: Statistics, cotangent_N: torch.Tensor) -> torch.Tensor:
    """d loss / d similarity of these rows, in the memory of the similarities."""
    n, column_lse_N = cotangent_N.shape[0], statistics.column_lse_N
    weight_C1 = cotangent_N[rows, None]
    column_CN = None
    if column_lse_N is not None:
        column_CN = (logits_CM[:, :n] - column_lse_N).exp_().mul_(cotangent_N / 2)
        weight_C1 = weight_C1 / 2
    logits_CM.sub_(statistics.row_lse_N[rows, None]).exp_().mul_(weight_C1)
    if column_CN is not None:
        logits_CM[:, :n].add_(column_CN)
    logits_CM.diagonal(rows.start).sub_(cotangent_N[rows])
    return logits_CM


def inverse_norms(vectors_XD: torch.Tensor) -> torch.Tensor:
    """1 / |x| of each row; 0 for a zero vector, which gives it cosine 0 and gradient 0."""
    norms_X = torch.linalg.vector_norm(vectors_XD, dim=1, dtype=accumulator_dtype(vectors_XD.dtype))
    return torch.where(norms_X == 0, 0, 1 / norms_X)


class _Products:
    """Row chunks of the masked similarities."""

    def __init__(self, inputs: Inputs, inverse_N: torch.Tensor, inverse_M: torch.Tensor):
        self.inputs, self.inverse_N, self.inverse_M = inputs, inverse_N, inverse_M
        self.dtype = accumulator_dtype(inputs.keys_MD.dtype)
        self.temperature = inputs.temperature.to(self.dtype)
        self.keys_MD = (
            inputs.keys_MD * inverse_M[:, None]
        )  # normalised once: M x D, where scaling every chunk of similarities would be N x M

        (self.n, _), self.m = inputs.queries_ND.shape, inputs.keys_MD.shape[0]
        self.chunk = min(self.n, max(64, CHUNK_ELEMENTS // self.m)) if self.n else 1

    def allocate_kept(self, options: Options) -> torch.Tensor | None:
        """Memory for similarities [K, M] of whole chunks that gradients will be taken of, as many as may be kept."""
        if options.backward_computes_gradients:
            kept = self.n if keeps_all(self.n, self.m) else 0
        elif options.forward_computes_gradients and options.symmetric:
            kept = self.n if keeps_all(self.n, self.m) else KEPT_ELEMENTS // self.m // self.chunk * self.chunk
        else:
            kept = 0
        return self.keys_MD.new_empty(kept, self.m) if kept else None

    def chunks(self, kept_KM: torch.Tensor | None, is_filled: bool) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
        """(rows, queries / (|q| temperature) [C, D], similarities [C, M]); the latter are computed into `kept_KM`, or taken from there."""
        kept = 0 if kept_KM is None else kept_KM.shape[0]
        buffer_CM = self.keys_MD.new_empty(self.chunk if kept < self.n else 0, self.m)
        for start in range(0, self.n, self.chunk):
            rows = slice(start, min(start + self.chunk, self.n))
            scaled_CD = self.inputs.queries_ND[rows] * (self.inverse_N[rows, None] / self.temperature)
            is_kept = kept_KM is not None and rows.stop <= kept
            logits_CM = kept_KM[rows] if kept_KM is not None and is_kept else buffer_CM[: rows.stop - start]
            if not (is_kept and is_filled):
                self._compute(rows, scaled_CD, logits_CM)
            yield rows, scaled_CD, logits_CM

    def _compute(self, rows: slice, scaled_CD: torch.Tensor, logits_CM: torch.Tensor) -> None:
        torch.mm(scaled_CD, self.keys_MD.T, out=logits_CM)
        if self.inputs.query_ids is not None and self.inputs.key_ids is not None:
            same_CM = self.inputs.query_ids[rows, None] == self.inputs.key_ids
            same_CM.diagonal(rows.start).fill_(False)
            logits_CM.masked_fill_(same_CM, LEFT_OUT)


class _ColumnSums:
    """Log-sum-exp of each column, and the mean similarity under its softmax, added up chunk by chunk with a running maximum."""

    def __init__(self, like_N: torch.Tensor, with_mean: bool):
        self.maximum_N = torch.full_like(like_N, LEFT_OUT)
        self.total_N = torch.zeros_like(like_N)
        self.weighted_N = torch.zeros_like(like_N) if with_mean else None

    def add(self, logits_CN: torch.Tensor) -> None:
        maximum_N = torch.maximum(self.maximum_N, logits_CN.amax(0))
        decay_N = (self.maximum_N - maximum_N).exp_()
        weights_CN = (logits_CN - maximum_N).exp_()
        self.total_N.mul_(decay_N).add_(weights_CN.sum(0))
        if self.weighted_N is not None:
            self.weighted_N.mul_(decay_N).add_(weights_CN.mul_(logits_CN).sum(0))
        self.maximum_N = maximum_N

    def finish(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        mean_N = self.weighted_N / self.total_N if self.weighted_N is not None else None
        return self.maximum_N + self.total_N.log(), mean_N


class _Gradients:
    """Turns row chunks of d loss / d similarity into the gradients wanted."""

    def __init__(self, products: "_Products", wanted: Wanted, dtype: torch.dtype):
        self.products, self.dtype = products, dtype
        shape = products.inputs.queries_ND.shape
        self.queries_ND = products.keys_MD.new_empty(shape, dtype=dtype) if wanted.queries else None
        self.keys_MD = torch.zeros_like(products.keys_MD) if wanted.keys else None

    def add(self, rows: slice, scaled_CD: torch.Tensor, dlogits_CM: torch.Tensor, scale_C1: torch.Tensor | None) -> None:
        """`scale_C1` multiplies the rows of `dlogits_CM`; it is folded into the smaller operands."""
        products = self.products
        if self.keys_MD is not None:
            self.keys_MD.addmm_(dlogits_CM.T, scaled_CD if scale_C1 is None else scaled_CD * scale_C1)
        if self.queries_ND is not None:
            grad_CD = dlogits_CM @ products.keys_MD
            if scale_C1 is not None:
                grad_CD.mul_(scale_C1)
            unit_CD = scaled_CD * products.temperature
            self.queries_ND[rows] = _at_raw_vector(grad_CD, unit_CD, products.inverse_N[rows, None] / products.temperature)

    def finish(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        if self.keys_MD is not None:
            for start in range(0, self.keys_MD.shape[0], 4096):  # in pieces, so that the temporaries stay small
                part = slice(start, start + 4096)
                unit_CD, inverse_C1 = self.products.keys_MD[part], self.products.inverse_M[part, None]
                self.keys_MD[part] = _at_raw_vector(self.keys_MD[part], unit_CD, inverse_C1)
        return self.queries_ND, None if self.keys_MD is None else self.keys_MD.to(self.dtype)


def _at_raw_vector(grad_CD: torch.Tensor, unit_CD: torch.Tensor, scale_C1: torch.Tensor) -> torch.Tensor:
    """From the gradient at x / |x| to the one at x: remove the part along x, then scale. Overwrites `grad_CD`."""
    along_C1 = torch.linalg.vecdot(grad_CD, unit_CD).unsqueeze(1)
    return grad_CD.addcmul_(unit_CD, along_C1, value=-1).mul_(scale_C1)
