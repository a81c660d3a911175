"""`python -m alignx_fast`: the same as the command `alignx-fast`."""

from alignx_fast.entry import main

if __name__ == "__main__":
    main()
