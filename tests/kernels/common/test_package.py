"""Rules that the whole package keeps: private APIs in one file, and an import that needs PyTorch only."""

import re
import subprocess
import sys
from pathlib import Path

import alignx_kernels
import pytest
import torch
from alignx_kernels import info_nce_loss, pooled_info_nce_loss

PACKAGE = Path(alignx_kernels.__file__).parent
PRIVATE = re.compile(r"torch\._|\btorch\.utils\._|triton\.(compiler|backends|runtime|knobs)\b")


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_private_apis_are_in_one_file(file):
    uses = PRIVATE.findall(file.read_text(encoding="utf-8"))
    assert bool(uses) == (file.name == "private_apis.py")


def test_the_import_needs_torch_only():
    code = (
        "import sys, alignx_kernels.info_nce.tiles; print(*[m for m in ('triton', 'transformers', 'numpy') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert set(output.split()) <= {"numpy"}  # torch may import it


def test_profilers_show_the_name_of_the_operator():
    rows = torch.randn(6, 4, requires_grad=True)
    spans = torch.tensor([(0, 2), (2, 3), (3, 6)])
    assert info_nce_loss(rows, rows).grad_fn.name() == "InfoNCEBackward"
    assert pooled_info_nce_loss(rows, spans[:1], spans[1:]).grad_fn.name() == "PooledInfoNCEBackward"
