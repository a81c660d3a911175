"""The stages of a run by name."""

from enum import StrEnum


class StageName(StrEnum):
    """A stage of training: its folder in the run, and its name in the log."""

    ALIGN = "align"
    """Stage 1: translations are pulled together."""
    NTP_ONLY = "ntp_only"
    """Control of stage 1: as many steps with next-token prediction alone."""
    INSTRUCT = "instruct"
    """Stage 2: instruction tuning."""
