"""`python -m alignx_fast`: the same as the command `alignx-fast`."""

from alignx_fast.cli import main

main()
