"""The losses of `alignx_kernels.integrations.open_clip` against the library's own classes, behind normalisation as its models have it."""

import inspect

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("open_clip", reason="open_clip is not installed")

import torch.distributed as dist
from alignx_kernels.integrations import open_clip as ours
from open_clip import CLIP
from open_clip import loss as library

N, D = 37, 24


def leaves(dtype=torch.float32):
    """What a model's towers give, before normalisation; the logarithm of the scale; the bias."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(N, D, generator=generator)
    texts = images + torch.randn(N, D, generator=generator)
    made = [images.to(dtype), texts.to(dtype), torch.tensor(2.66), torch.tensor(-3.0)]
    return [leaf.requires_grad_() for leaf in made]


def result(loss, given, bias=True, autocast=False):
    """The value and all gradients of a loss module as open_clip's training calls it."""
    images, texts, log_scale, logit_bias = given
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = loss(
            image_features=F.normalize(images, dim=-1),
            text_features=F.normalize(texts, dim=-1),
            logit_scale=log_scale.exp(),
            **({"logit_bias": logit_bias} if bias else {}),
            output_dict=True,
        )
    (value,) = out.values()
    assert list(out) == ["contrastive_loss"]
    gradients = torch.autograd.grad(value, given[: 4 if bias else 3])
    assert all(gradient.abs().max() > 1e-4 for gradient in gradients[:3])
    return [value.detach(), *gradients]


def assert_close(mine, theirs, tolerance):
    for got, expected in zip(mine, theirs, strict=True):
        assert (got.double() - expected.double()).abs().max() <= tolerance * max(expected.abs().max(), 1e-2)


@pytest.mark.parametrize("name", ["ClipLoss", "SigLipLoss"])
def test_signatures_are_the_librarys(name):
    for method in ("__init__", "forward"):
        mine, theirs = (inspect.signature(getattr(getattr(where, name), method)).parameters.values() for where in (ours, library))
        assert [(p.name, p.default) for p in mine] == [(p.name, p.default) for p in theirs]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_clip(bias, dtype):
    mine, theirs = (result(where.ClipLoss(cache_labels=True), leaves(dtype), bias) for where in (ours, library))
    assert_close(mine, theirs, 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_siglip(dtype):
    mine, theirs = (result(where.SigLipLoss(), leaves(dtype)) for where in (ours, library))
    assert_close(mine, theirs, 1e-5)


@pytest.mark.parametrize("name", ["ClipLoss", "SigLipLoss"])
def test_under_autocast_nothing_but_products_is_rounded(name):
    """fp32 features under bf16 autocast."""
    exact = result(getattr(library, name)(), leaves(torch.float64))
    assert_close(result(getattr(ours, name)(), leaves(), autocast=True), exact, 2e-2)


def test_plain_numbers_and_a_tensor_for_the_result():
    images, texts = (F.normalize(side, dim=1) for side in leaves()[:2])
    torch.testing.assert_close(ours.ClipLoss()(images, texts, 14.3), library.ClipLoss()(images, texts, 14.3))
    torch.testing.assert_close(ours.SigLipLoss()(images, texts, 14.3, -5.0), library.SigLipLoss()(images, texts, 14.3, -5.0))


def one_of_two(rank, folder, failures):
    """Both losses in each of their distributed forms, in one of two processes."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.manual_seed(rank)
    kinds = [("ClipLoss", {"local_loss": local, "gather_with_grad": grad}) for local in (True, False) for grad in (True, False)]
    kinds += [("SigLipLoss", {"dist_impl": kind}) for kind in ("bidir", "shift", "reduce", "gather")]
    images, texts = (torch.randn(9, D) for _ in range(2))
    for name, options in kinds:
        outcomes = []
        for where in (ours, library):
            given = [images.clone(), texts.clone(), torch.tensor(2.0), torch.tensor(-3.0)]
            loss = getattr(where, name)(rank=rank, world_size=2, **options)
            outcomes.append(result(loss, [leaf.requires_grad_() for leaf in given]))
        try:
            assert_close(*outcomes, 1e-5)
        except AssertionError as error:
            failures.append((rank, name, options, str(error)))
    dist.destroy_process_group()


@pytest.mark.slow
def test_in_two_processes(tmp_path):
    """Each process compares its own loss and gradients with those of the library."""
    with torch.multiprocessing.get_context("spawn").Manager() as manager:
        failures = manager.list()
        torch.multiprocessing.spawn(one_of_two, (str(tmp_path), failures), nprocs=2)
        assert list(failures) == []


def test_a_model_of_open_clip_learns_with_it():
    """Five steps of a tiny CLIP: the same loss curve."""
    tower = {"layers": 1, "width": 32}
    vision = {**tower, "image_size": 16, "patch_size": 8, "head_width": 16}
    text = {**tower, "context_length": 8, "vocab_size": 50, "heads": 2}
    generator = torch.Generator().manual_seed(0)
    images, texts = torch.randn(6, 3, 16, 16, generator=generator), torch.randint(1, 50, (6, 8), generator=generator)
    curves = []
    for where in (ours, library):
        torch.manual_seed(0)
        model = CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text, output_dict=True)
        loss, optimizer = where.ClipLoss(), torch.optim.AdamW(model.parameters(), 1e-3)
        curve = []
        for _ in range(5):
            optimizer.zero_grad()
            value = loss(**model(images, texts))
            value.backward()
            optimizer.step()
            curve.append(value.item())
        curves.append(curve)
    assert curves[0] == pytest.approx(curves[1], rel=1e-3)
    assert curves[0][-1] < curves[0][0] - 0.1
