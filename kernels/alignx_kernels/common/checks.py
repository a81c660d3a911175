"""Validation of the arguments of the public functions: every message quotes the value received and says what is needed.

None of these checks reads a value from a GPU, which would stall the queue and break CUDA graph capture. `check_span_values` and
`check_temperature_value` read values, and do so in CPU memory only. What is wrong with values on a GPU shows as NaN.
"""

import math

import torch

FLOATING = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
INTEGERS = (torch.int32, torch.int64)
REDUCTIONS = ("mean", "sum", "none")


def check_matrix(name: str, tensor: torch.Tensor) -> None:
    """A 2-D floating-point tensor."""
    if tensor.dim() != 2:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; it must be 2-D.")
    if tensor.dtype not in FLOATING:
        raise ValueError(f"{name} is {tensor.dtype}; it must be bfloat16, float16, float32 or float64.")


def check_same_device(**tensors: torch.Tensor | None) -> None:
    """All tensors given (None is skipped) lie on one device."""
    devices = {name: tensor.device for name, tensor in tensors.items() if tensor is not None}
    if len(set(devices.values())) > 1:
        places = ", ".join(f"{name} on {device}" for name, device in devices.items())
        raise ValueError(f"The tensors lie on different devices ({places}); move them to one.")


def check_shape(name: str, tensor: torch.Tensor, shape: tuple[int, ...], meaning: str) -> None:
    """`tensor` has exactly `shape`; `meaning` names the shape in the caller's terms, such as "[I, 2D]"."""
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; it must be {meaning} = {list(shape)}.")


def check_ids(name: str, ids: torch.Tensor, length: int) -> None:
    """A 1-D integer tensor with one entry per row."""
    if ids.dtype not in INTEGERS:
        raise ValueError(f"{name} is {ids.dtype}; it must be int32 or int64.")
    if tuple(ids.shape) != (length,):
        raise ValueError(f"{name} has shape {tuple(ids.shape)}; it must be [{length}], one entry per row.")


def check_reduction(reduction: str) -> None:
    """One of `REDUCTIONS`."""
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction is {reduction!r}; it must be one of {', '.join(map(repr, REDUCTIONS))}.")


def check_temperature(temperature: float | torch.Tensor) -> None:
    """A positive finite number, or a floating-point tensor of one element, whose value is not read."""
    if isinstance(temperature, torch.Tensor):
        if temperature.numel() != 1 or temperature.dtype not in FLOATING:
            raise ValueError(
                f"temperature is a {temperature.dtype} tensor of shape {tuple(temperature.shape)};"
                " it must be a number or a floating-point tensor of one element."
            )
    else:
        _check_positive(temperature)


def check_temperature_value(temperature: torch.Tensor) -> None:
    """A temperature in CPU memory is positive; a NaN passes, and gives a loss of NaN."""
    if temperature.device.type == "cpu" and not temperature.isnan():
        _check_positive(temperature.item())


def _check_positive(temperature: float) -> None:
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature is {temperature}; it must be a positive number, such as 0.1.")


def check_spans(name: str, spans_S2: torch.Tensor, hidden_TD: torch.Tensor) -> None:
    """Integer [S, 2], on the device of `hidden_TD` or in CPU memory."""
    if spans_S2.dim() != 2 or spans_S2.shape[1] != 2:
        raise ValueError(f"{name} has shape {tuple(spans_S2.shape)}; it must be [S, 2]: one (start, end) a row, end exclusive.")
    if spans_S2.dtype not in INTEGERS:
        raise ValueError(f"{name} is {spans_S2.dtype}; it must be int32 or int64.")
    if spans_S2.device.type != "cpu":
        check_same_device(**{"hidden_TD": hidden_TD, name: spans_S2})


def check_span_values(name: str, spans_S2: torch.Tensor, num_tokens: int) -> None:
    """Spans in CPU memory lie within [0, num_tokens], hold at least one token each, and do not overlap."""
    start_S, end_S = spans_S2.unbind(1)
    wrong = ((start_S < 0) | (start_S >= end_S) | (end_S > num_tokens)).nonzero()
    if len(wrong):
        row = int(wrong[0])
        start, end = spans_S2[row].tolist()
        raise ValueError(f"{name}[{row}] is ({start}, {end}); it must satisfy 0 <= start < end <= {num_tokens} tokens.")
    ordered_S2 = spans_S2[start_S.argsort()]
    clashes = (ordered_S2[1:, 0] < ordered_S2[:-1, 1]).nonzero()
    if len(clashes):
        before, after = ordered_S2[int(clashes[0]) :][:2].tolist()
        raise ValueError(f"{name} holds {tuple(before)} and {tuple(after)}, which overlap; spans must be disjoint.")
