"""Two-stage multilingual alignment training on one GPU."""

import logging
import os
import sys
import warnings

# Nothing is ever downloaded that the user did not name: with the `kernels` package installed, transformers and bitsandbytes would
# fetch compiled code from the hub on import or on first use.
os.environ.setdefault("USE_HUB_KERNELS", "0")
sys.modules.setdefault("kernels", None)  # type: ignore[arg-type]
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
# peft asks transformers by an old name; nothing a user can do about it.
warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
