"""Understanding tasks on local files: task files for lm-evaluation-harness in `files/`, and the functions that they name."""

from pathlib import Path

TASK_FILES = Path(__file__).parent / "files"
"""What lm-eval takes as `--include_path`."""
