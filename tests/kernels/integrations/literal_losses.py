"""The formulas of the losses, written down with all similarities, in fp64: the truth for the integrations."""

import torch
import torch.nn.functional as F


def cosines(left, right):
    return F.normalize(left, dim=1) @ F.normalize(right, dim=1).T


def multiple_negatives(queries, documents, *, temperature, directions, joint, offset=0, num_queries=None):
    """Scores of every direction beside each other, as the paper and sentence-transformers have them."""
    n = len(queries) if num_queries is None else num_queries
    own = torch.arange(offset, offset + n)
    mine = torch.zeros(n, len(queries), dtype=torch.bool)
    mine[torch.arange(n), own] = True
    scores = {"query_to_doc": cosines(queries[own], torch.cat(documents))}
    if "query_to_query" in directions:
        scores["query_to_query"] = cosines(queries[own], queries).masked_fill(mine, -torch.inf)
    if "doc_to_query" in directions:
        scores["doc_to_query"] = cosines(documents[0][own], queries)
    if "doc_to_doc" in directions:
        same = mine.repeat(1, len(documents))
        scores["doc_to_doc"] = cosines(documents[0][own], torch.cat(documents)).masked_fill(same, -torch.inf)
    scores = {name: score / temperature for name, score in scores.items()}
    positive = scores["query_to_doc"][torch.arange(n), own]
    if joint:
        return (torch.cat(list(scores.values()), 1).logsumexp(1) - positive).mean()
    return torch.stack([(score.logsumexp(1) - positive).mean() for score in scores.values()]).mean()


def guided(
    anchors,
    candidates,
    guide_anchors,
    guide_candidates,
    *,
    temperature,
    margin,
    relative,
    contrast_anchors,
    contrast_positives,
    offset=0,
):
    rows = torch.arange(len(anchors))
    own = rows + offset
    limit = cosines(guide_anchors, guide_candidates[0])[rows, own][:, None]
    limit = limit - (limit.abs() * margin if relative else margin)
    pairs = [(anchors, candidates[0], guide_anchors, guide_candidates[0])]
    if contrast_anchors:
        pairs.append((anchors, anchors, guide_anchors, guide_anchors))
    if contrast_positives:
        pairs.append((candidates[0][own], candidates[0], guide_candidates[0][own], guide_candidates[0]))
    pairs += [(anchors, side, guide_anchors, guide) for side, guide in zip(candidates[1:], guide_candidates[1:], strict=True)]
    scores = []
    for left, right, guide_left, guide_right in pairs:
        close = cosines(guide_left, guide_right) > limit
        if not scores:
            close[rows, own] = False
        scores.append(cosines(left, right).masked_fill(close, -torch.inf))
    return F.cross_entropy(torch.cat(scores, 1) / temperature, own)


def sigmoid(images, texts, scale, bias, *, negatives_only=False):
    logits = images @ texts.T * scale + bias
    sign = torch.ones_like(logits)
    if not negatives_only:
        sign -= 2 * torch.eye(*logits.shape, dtype=logits.dtype)
    return F.softplus(sign * logits).sum() / len(images)
