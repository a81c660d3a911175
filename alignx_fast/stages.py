"""The stages of a run by name."""

from enum import StrEnum
from typing import Literal

Stage = Literal["align", "instruct"]
"""A stage that has settings of its own, by the name of their group."""


class StageName(StrEnum):
    """A stage of training: its folder in the run, and its name in the log."""

    ALIGN = "align"
    """Stage 1: translations are pulled together."""
    NTP_ONLY = "ntp_only"
    """Control of stage 1: as many steps with next-token prediction alone."""
    INSTRUCT = "instruct"
    """Stage 2: instruction tuning."""

    @property
    def settings(self) -> Stage:
        """The group of settings that it is trained by."""
        return "instruct" if self is StageName.INSTRUCT else "align"
