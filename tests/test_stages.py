"""The names of stages."""

from typing import get_args

from alignx_fast.stages import Stage, StageName


def test_the_settings_name_stages_that_exist() -> None:
    assert set(get_args(Stage)) == set(StageName) - {StageName.NTP_ONLY}
