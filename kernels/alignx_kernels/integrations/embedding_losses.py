"""The losses of the integrations as functions of embeddings; they need none of the other libraries.

Shape legend: N queries of this process, W queries of all processes (N where there is one), D width, C rows of a chunk.
"""

from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F

from ..info_nce import info_nce_loss
from .row_chunks import sum_over_rows


def own_first(rows_WD: torch.Tensor, offset: int) -> torch.Tensor:
    """The same rows, this process's first: the positive of its query i is then key i."""
    return torch.cat([rows_WD[offset:], rows_WD[:offset]]) if offset else rows_WD


def in_one_dtype(*tensors: torch.Tensor) -> list[torch.Tensor]:
    """In the smallest dtype that holds all of them: the two sides may come from different models."""
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return [tensor.to(dtype) for tensor in tensors]


def multiple_negatives(
    queries_WD: torch.Tensor,
    documents: Sequence[torch.Tensor],
    *,
    temperature: float,
    directions: Collection[str] = ("query_to_doc",),
    joint: bool = True,
    offset: int = 0,
    num_queries: int | None = None,
) -> torch.Tensor:
    """Mean cross entropy of N queries against the documents of all queries, and of documents against queries.

    `documents` holds [W, D] each: the positives, then further negatives of each query. The queries of this process are `num_queries`
    rows from `offset` on. `directions` and `joint` are those of sentence-transformers' MultipleNegativesRankingLoss: "query_to_doc" is
    always there, "query_to_query" and "doc_to_doc" only in one joint softmax, and "doc_to_doc" only beside "doc_to_query". Cosines, fp32
    sums; a scalar.
    """
    w, n = len(queries_WD), len(queries_WD) if num_queries is None else num_queries
    queries_WD, *documents = (own_first(rows, offset) for rows in in_one_dtype(queries_WD, *documents))
    own_N, others_W = (torch.arange(rows, device=queries_WD.device) for rows in (n, w))

    def against(left_ND: torch.Tensor, right: list[torch.Tensor], same: list[torch.Tensor], reduction: str) -> torch.Tensor:
        """Key i of the first of `right` is the positive; from `same` on, those that belong to query i itself are left out."""
        query_ids = key_ids = None
        if same:
            nobody = others_W.new_full((sum(map(len, right)),), -1)
            query_ids, key_ids = own_N, torch.cat([nobody, *(others_W for _ in same)])
        keys_MD = _stacked([*right, *same])
        return info_nce_loss(left_ND, keys_MD, temperature=temperature, reduction=reduction, query_ids=query_ids, key_ids=key_ids)

    if set(directions) == {"query_to_doc", "doc_to_query"} and not joint and n == w:
        return info_nce_loss(queries_WD, _stacked(documents), temperature=temperature, symmetric=True)
    among_queries = [queries_WD] if "query_to_query" in directions else []
    if "doc_to_query" not in directions:
        return against(queries_WD[:n], list(documents), among_queries, "mean")
    from_queries_N = against(queries_WD[:n], list(documents), among_queries, "none")
    among_documents = list(documents) if "doc_to_doc" in directions else []
    from_documents_N = against(documents[0][:n], [queries_WD], among_documents, "none")
    if joint:  # one softmax over both: each loss is a log-sum minus the similarity of the same pair
        return torch.logaddexp(from_queries_N, from_documents_N).mean()
    return (from_queries_N.mean() + from_documents_N.mean()) / 2


def guided(
    anchors_ND: torch.Tensor,
    candidates: Sequence[torch.Tensor],
    guide_anchors_NG: torch.Tensor,
    guide_candidates: Sequence[torch.Tensor],
    *,
    temperature: float,
    margin: float = 0.0,
    relative: bool = False,
    contrast_anchors: bool = True,
    contrast_positives: bool = True,
    offset: int = 0,
) -> torch.Tensor:
    """Mean cross entropy of anchors against all candidates without those that a guide finds too close to be negatives.

    `candidates` holds [W, D] each, positives first; the positive of anchor i is row `offset` + i. A negative is left out where the guide's
    cosine for it is above that of the anchor and its positive minus `margin` (times that cosine, where `relative`). Anchors among
    themselves, and positives among themselves, are negatives too where contrasted. In fp32, in chunks of rows; a scalar.
    Source: GISTEmbed, arXiv 2402.16829.
    """
    n = len(anchors_ND)
    anchors_ND, *candidates = (_unit(side) for side in (anchors_ND, *candidates))
    guide_anchors_NG, *guide_candidates = (_unit(side).detach() for side in (guide_anchors_NG, *guide_candidates))
    positives_WD, guide_positives_WG = candidates[0], guide_candidates[0]
    keys_MD = torch.cat([*candidates, *([anchors_ND] if contrast_anchors else [])])
    guide_keys_MG = torch.cat([*guide_candidates, *([guide_anchors_NG] if contrast_anchors else [])])

    def chunk_loss(rows: slice, anchors: torch.Tensor, keys: torch.Tensor, positives: torch.Tensor) -> torch.Tensor:
        own = slice(offset + rows.start, offset + rows.stop)
        label_C = torch.arange(own.start, own.stop, device=anchors.device)
        logits_CM, guide_CM = anchors[rows] @ keys.T, guide_anchors_NG[rows] @ guide_keys_MG.T
        limit_C1 = guide_CM.gather(1, label_C[:, None])
        limit_C1 = limit_C1 - (limit_C1.abs() * margin if relative else margin)
        close_CM = (guide_CM > limit_C1).scatter_(1, label_C[:, None], False)
        logits = [logits_CM.masked_fill(close_CM, -torch.inf)]
        if contrast_positives:
            close_CW = guide_positives_WG[own] @ guide_positives_WG.T > limit_C1
            logits.append((positives[own] @ positives.T).masked_fill(close_CW, -torch.inf))
        return F.cross_entropy(torch.cat(logits, 1) / temperature, label_C, reduction="sum") / n

    columns = len(keys_MD) + (len(positives_WD) if contrast_positives else 0)
    return sum_over_rows(chunk_loss, n, columns, anchors_ND, keys_MD, positives_WD)


def sigmoid(
    images_ND: torch.Tensor,
    texts_MD: torch.Tensor,
    scale: float | torch.Tensor,
    bias: float | torch.Tensor | None = None,
    *,
    negatives_only: bool = False,
) -> torch.Tensor:
    """Sum over all pairs of softplus(-+ (scale image . text + bias)), - where both are of one pair (i, i), over the number of images.

    Products in the dtype that autocast says, else in that of the features; all else in fp32, in chunks of rows; a scalar.
    Source: SigLIP, arXiv 2303.15343.
    """
    device = images_ND.device
    images_ND, texts_MD = in_one_dtype(images_ND, texts_MD)
    dtype = images_ND.dtype
    if torch.is_autocast_enabled(device.type) and dtype == torch.float32:
        dtype = torch.get_autocast_dtype(device.type)
    wide = torch.promote_types(images_ND.dtype, torch.float32)
    scalars = (torch.as_tensor(0.0 if x is None else x, dtype=wide, device=device).reshape(()) for x in (scale, bias))

    def chunk_loss(
        rows: slice, images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor
    ) -> torch.Tensor:
        logits_CM = (images[rows].to(dtype) @ texts.to(dtype).T).to(wide) * scale + bias
        loss = F.softplus(logits_CM).sum()
        # softplus(-x) = softplus(x) - x
        return (loss if negatives_only else loss - logits_CM.diagonal(rows.start).sum()) / len(images)

    return sum_over_rows(chunk_loss, len(images_ND), len(texts_MD), images_ND.to(wide), texts_MD.to(wide), *scalars)


def _stacked(sides: Sequence[torch.Tensor]) -> torch.Tensor:
    """One below the other; a single one is not copied."""
    return sides[0] if len(sides) == 1 else torch.cat(list(sides))


def _unit(vectors_XD: torch.Tensor) -> torch.Tensor:
    """Of length 1, in fp32 (fp64 for fp64)."""
    return F.normalize(vectors_XD.to(torch.promote_types(vectors_XD.dtype, torch.float32)), dim=1)
