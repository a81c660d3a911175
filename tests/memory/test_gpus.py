"""Which card a device's name stands for."""

import pytest

from alignx_fast.memory.gpus import GIB, GPUS, named, representative

DEVICES = {
    "NVIDIA L4": ["L4"],
    "NVIDIA L40S": ["L40S"],
    "NVIDIA L40": [],  # another card than both
    "NVIDIA A100-SXM4-80GB": ["A100 40GB", "A100 80GB"],
    "NVIDIA H100 80GB HBM3": ["H100"],
    "NVIDIA H200": ["H200"],
    "NVIDIA GeForce RTX 4090": ["RTX 4090"],
}


@pytest.mark.parametrize(("device", "cards"), DEVICES.items())
def test_a_device_is_known_by_the_whole_word(device: str, cards: list[str]) -> None:
    assert [gpu.name for gpu in named(device)] == cards


@pytest.mark.parametrize("card", GPUS, ids=lambda card: card.name)
def test_every_card_represents_itself(card) -> None:
    device = f"NVIDIA {card.name.replace('A100 ', 'A100-SXM4-')}"
    assert representative(card.gib * GIB, device) == card
