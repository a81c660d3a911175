"""Two-stage multilingual alignment training on one GPU."""

import logging
import os
import sys

# Nothing is ever downloaded that the user did not name: with the `kernels` package installed, transformers and bitsandbytes would
# fetch compiled code from the hub on import or on first use.
os.environ.setdefault("USE_HUB_KERNELS", "0")
sys.modules.setdefault("kernels", None)  # type: ignore[arg-type]
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
