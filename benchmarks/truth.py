"""fp64 truth in bounded memory, written apart from the implementations that it judges."""

import torch

Tensors = dict[str, torch.Tensor]
BLOCK_ELEMENTS = 1 << 27
"""fp64 values held at once: 1 GiB."""


@torch.no_grad()
def info_nce(queries: torch.Tensor, keys: torch.Tensor, *, temperature: float, symmetric: bool) -> Tensors:
    """Mean loss and the gradients of [N, D] queries and [M, D] keys; row blocks of the similarities, twice."""
    n, m = len(queries), len(keys)
    norm_N1, norm_M1 = (x.double().norm(dim=1, keepdim=True) for x in (queries, keys))
    unit_q_ND, unit_k_MD = queries.double() / norm_N1, keys.double() / norm_M1
    blocks = list(torch.arange(n, device=queries.device).split(max(1, BLOCK_ELEMENTS // (4 * m))))

    row_lse_N = unit_q_ND.new_empty(n)
    column_lse_N = unit_q_ND.new_full((n,), -torch.inf)
    for rows in blocks:
        logits_CM = unit_q_ND[rows] @ unit_k_MD.T / temperature
        row_lse_N[rows] = logits_CM.logsumexp(1)
        column_lse_N = torch.logaddexp(column_lse_N, logits_CM[:, :n].logsumexp(0))
    positive_N = (unit_q_ND * unit_k_MD[:n]).sum(1) / temperature
    loss = (row_lse_N - positive_N).mean()
    if symmetric:
        loss = (loss + (column_lse_N - positive_N).mean()) / 2

    share = 1 / (n * (2 if symmetric else 1))
    grad_q_ND, grad_k_MD = torch.empty_like(unit_q_ND), torch.zeros_like(unit_k_MD)
    for rows in blocks:
        logits_CM = unit_q_ND[rows] @ unit_k_MD.T / temperature
        slope_CM = (logits_CM - row_lse_N[rows, None]).exp()
        slope_CM[torch.arange(len(rows)), rows] -= 1
        if symmetric:
            slope_CM[:, :n] += (logits_CM[:, :n] - column_lse_N).exp()
            slope_CM[torch.arange(len(rows)), rows] -= 1
        grad_q_ND[rows] = slope_CM @ unit_k_MD
        grad_k_MD += slope_CM.T @ unit_q_ND[rows]
    gradients = []
    for grad_XD, unit_XD, norm_X1 in ((grad_q_ND, unit_q_ND, norm_N1), (grad_k_MD, unit_k_MD, norm_M1)):
        grad_XD *= share / temperature
        grad_XD -= unit_XD * (grad_XD * unit_XD).sum(1, keepdim=True)
        gradients.append(grad_XD / norm_X1)
    return {"output": loss, "queries": gradients[0], "keys": gradients[1]}


@torch.no_grad()
def span_mean(hidden: torch.Tensor, spans: torch.Tensor, cotangent: torch.Tensor) -> Tensors:
    """Means over disjoint spans of [T, D] tokens, and the tokens' gradient under the cotangent [S, D] of the means."""
    grad_TD = torch.zeros_like(hidden, dtype=torch.float64)
    means = []
    for (start, end), row_D in zip(spans.tolist(), cotangent.double(), strict=True):
        means.append(hidden[start:end].double().sum(0) / (end - start))
        grad_TD[start:end] = row_D / (end - start)
    return {"output": torch.stack(means), "hidden": grad_TD}


def pooled_info_nce(hidden: torch.Tensor, sources: torch.Tensor, targets: torch.Tensor, **options) -> Tensors:
    """`info_nce` of the means over source and target spans, with the gradient of the tokens."""
    nothing = hidden.new_zeros(len(sources), hidden.shape[1])
    queries, keys = (span_mean(hidden, spans, nothing)["output"] for spans in (sources, targets))
    found = info_nce(queries, keys, **options)
    gradients = (span_mean(hidden, spans, found[name])["hidden"] for name, spans in (("queries", sources), ("keys", targets)))
    return {"output": found["output"], "hidden": sum(gradients)}


def language_matching(
    embeddings: torch.Tensor, gate: torch.Tensor, up: torch.Tensor, down: torch.Tensor, languages: torch.Tensor
) -> Tensors:
    """Mean loss over all pairs and the gradients of its four inputs; autograd over row blocks of the pairs."""
    given = {"embeddings": embeddings, "gate": gate, "up": up, "down": down}
    wide = {name: tensor.detach().double().requires_grad_() for name, tensor in given.items()}
    m, d = embeddings.shape
    projections = [wide["embeddings"] @ weight.T for name in ("gate", "up") for weight in (wide[name][:, :d], wide[name][:, d:])]
    leaves = [projection.detach().requires_grad_() for projection in projections]
    gate_a, gate_b, up_a, up_b = leaves
    total = torch.zeros((), dtype=torch.float64, device=embeddings.device)
    for rows in torch.arange(m, device=embeddings.device).split(max(1, BLOCK_ELEMENTS // (4 * m * len(gate)))):
        x_CMI, v_CMI = gate_a[rows, None] + gate_b[None], up_a[rows, None] + up_b[None]
        z_CM2 = (torch.nn.functional.silu(x_CMI) * v_CMI) @ wide["down"].T
        same_CM = languages[rows, None] == languages[None]
        loss = torch.nn.functional.cross_entropy(z_CM2.flatten(0, 1), same_CM.long().flatten(), reduction="sum") / m**2
        loss.backward()
        total += loss.detach()
    torch.autograd.backward(projections, [leaf.grad for leaf in leaves])
    return {"output": total} | {name: tensor.grad for name, tensor in wide.items()}
