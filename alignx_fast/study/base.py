"""The model that all runs of a study start from: `builtin:tiny` is built once, where an ordinary run would build its own."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from alignx_fast.config import BUILTIN_TINY, Settings
from alignx_fast.data.gather import training_texts
from alignx_fast.errors import UserError
from alignx_fast.files import publish
from alignx_fast.models.tiny import save_tiny_model
from alignx_fast.study.layout import Layout
from alignx_fast.study.spec import Study, Variant
from alignx_fast.training.inputs import RunInputs, model_fingerprint

log = logging.getLogger(__name__)


@contextmanager
def base_model(study: Study) -> Iterator[Path | None]:
    """The folder of the tiny model, built in a temporary place if the study folder has none yet; None where no variant asks for one.

    Raises:
        UserError: a variant wants a tiny model of another shape, or its training text cannot be read.
    """
    tiny = [variant for variant in study.variants if variant.settings.model.path == BUILTIN_TINY]
    folder = Layout(study.output).base
    if not tiny:
        yield None
        return
    if folder.exists() and RunInputs(study.output).changed({base_of(variant): model_fingerprint(folder) for variant in tiny}):
        log.warning("%s is not what this study left there: it is built again.", folder)
        if folder.is_dir():
            shutil.rmtree(folder)
        else:
            folder.unlink()
    if folder.exists():
        yield folder
    else:
        _check_one_shape(study.shared, tiny)
        with TemporaryDirectory(prefix="alignx-fast-") as temporary:
            save_tiny_model(training_texts(study.shared), study.shared.model, study.seeds[0], Path(temporary))
            yield Path(temporary)


def base_of(variant: Variant) -> str:
    """What the record of a study calls the model that a variant starts from."""
    return f"the base model of variant {variant.name}"


def keep_base(model: Path, folder: Path) -> None:
    """Copy a model that was built in a temporary place to the study folder."""
    if folder.exists():
        return
    partial = folder.with_name("base.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(model, partial)
    publish(partial, folder)


def starting_from(study: Study, model: Path) -> Study:
    """The same study with `model` in the place of `builtin:tiny`, in full precision as that is."""
    return replace(
        study,
        shared=_on(study.shared, model),
        variants=tuple(replace(variant, settings=_on(variant.settings, model)) for variant in study.variants),
    )


def _on(settings: Settings, model: Path) -> Settings:
    if settings.model.path != BUILTIN_TINY:
        return settings
    dtype = "float32" if settings.model.dtype == "auto" else settings.model.dtype
    return settings.model_copy(update={"model": settings.model.model_copy(update={"path": str(model), "dtype": dtype})})


def _check_one_shape(shared: Settings, variants: list[Variant]) -> None:
    def shape(settings: Settings) -> dict[str, object]:
        return {name: value for name, value in settings.model.model_dump().items() if name.startswith("tiny_") or name == "path"}

    for variant in variants:
        for name, value in shape(variant.settings).items():
            if value != shape(shared)[name]:
                raise UserError(
                    f"Variant {variant.name} sets model.{name}, but a study builds its tiny model once for all variants: set it under "
                    "`settings`."
                )
