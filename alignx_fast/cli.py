"""The command line. Verbs are imported only when they run, so that `--help` answers at once."""

import itertools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

from alignx_fast.entry import main as main  # the name that the installed command and programs know
from alignx_fast.errors import UserError
from alignx_fast.files import check_place

if TYPE_CHECKING:  # pydantic takes too long to import for `--help`
    from alignx_fast.config import Settings

app = App(
    name="alignx-fast",
    help="Make a language model more multilingual on one GPU: align its representations on parallel text, then tune it on instructions.",
    suppress_keyboard_interrupt=False,  # the way out says how to go on
)
recipes_app = App(name="recipes", help="List, show or copy the recipes and studies that come with the package.")
app.command(recipes_app)

Overrides = Annotated[str, Parameter(allow_leading_hyphen=True, show=False)]
HomePath = Annotated[Path, Parameter(converter=lambda _, tokens: Path(os.path.expanduser(tokens[0].value)))]
Trained = Annotated[str, Parameter(converter=lambda _, tokens: os.path.expanduser(tokens[0].value))]
Recipe = Annotated[str, Parameter(allow_leading_hyphen=True, help="A recipe name (see `alignx-fast recipes`) or a YAML file.")]


def overrides_from(tokens: tuple[str, ...]) -> dict[str, object]:
    """`--a.b value`, `--a.b=value` or a lone `--a.b` (true) as {"a.b": value}; texts and paths as they are typed, the rest as YAML.

    Raises:
        UserError: a token that is no option, or a setting without its value.
    """
    from alignx_fast.config import Settings
    from alignx_fast.reading import kind_of, members, read_value

    values: dict[str, object] = {}
    waiting = list(tokens)
    while waiting:
        token = waiting.pop(0)
        if not token.startswith("--"):
            raise UserError(f"Unexpected argument {token!r}: settings are given as --group.setting value.")
        name, equals, value = token[2:].partition("=")
        key = name.replace("-", "_")
        kind = kind_of(key, Settings)
        if not equals and waiting and not waiting[0].startswith("--"):
            value = waiting.pop(0)
        elif not equals:
            if kind is not None and bool not in members(kind):
                raise UserError(f"--{name} needs a value: settings are given as --group.setting value.")
            value = "true"
        values[key] = read_value(value, kind, f"--{name}")
    return values


def settings_from(recipe: str, tokens: tuple[str, ...]) -> "Settings":
    """The settings of a recipe with overrides; those of the quickstart where overrides stand in the recipe's place."""
    from alignx_fast.config import load_settings
    from alignx_fast.recipes import find

    if recipe.startswith("--"):
        recipe, tokens = "quickstart", (recipe, *tokens)
    return load_settings(find(recipe), overrides_from(tokens))


@app.command
def train(recipe: Recipe = "quickstart", *settings: Overrides, resume: bool = False, accept_changes: bool = False) -> None:
    """Run both stages, evaluate before and after, and write a report.

    Any setting can be given as --group.setting value, for example --align.pairs_per_step 256.

    Parameters
    ----------
    resume:
        Continue the run in the output folder from where it stopped; starts one where there is none.
    accept_changes:
        Continue it also on other data, weights or settings than it was started with; inputs.json in its folder says which.
    """
    chosen = settings_from(recipe, settings)  # before the heavy imports: a mistake in the settings is said at once
    from alignx_fast.training.run import train as run

    run(chosen, resume=resume, accept_changes=accept_changes)


@app.command
def prepare(
    recipe: Annotated[str, Parameter(help="A recipe name, a YAML file, or a file of translation pairs.")], *settings: Overrides
) -> None:
    """Make a folder of clean training pairs from corpora of any size. The same command goes on after a stop.

    Training reads the folder as `data.parallel: [{path: FOLDER}]`. Any setting can be given as --group.setting value, for example
    --corpus.output FOLDER.
    """
    from alignx_fast.verbs.prepare import prepare_corpus, settings_for

    prepare_corpus(settings_for(recipe, overrides_from(settings)))


@app.command
def plan(
    recipe: Recipe = "quickstart",
    *settings: Overrides,
    gpu: str | None = None,
    measure: bool = False,
    processes: Annotated[int, Parameter(validator=Number(gte=1))] = 1,
) -> None:
    """Show where the memory goes and how long a step takes, before any weight is loaded.

    Parameters
    ----------
    gpu:
        Memory of the card, such as 24GiB; default: the card of this machine, or 24GiB.
    measure:
        Run one step with random weights on this machine's GPU and set it beside the plan.
    processes:
        GPUs that share each step, as `torchrun --nproc-per-node` starts them.
    """
    from alignx_fast.verbs.plan import show

    show(settings_from(recipe, settings), gpu, measured=measure, processes=processes)


@app.command
def preview(recipe: Recipe = "quickstart", *settings: Overrides, rows: int = 5) -> None:
    """Show rows as the model will see them: tokens, spans in colour, and what was dropped and why.

    Parameters
    ----------
    rows:
        Rows to show of each stage.
    """
    from alignx_fast.verbs.preview import show

    show(settings_from(recipe, settings), rows)


@app.command
def evaluate(
    model: Trained,
    *settings: Overrides,
    against: Trained | None = None,
    output: HomePath | None = None,
    allow_overlap: bool = False,
) -> None:
    """Score runs, model folders or hub models on held-out sentences; several are shown side by side.

    Any setting can be given as --group.setting value, for example --evaluation.sentences 200.

    Parameters
    ----------
    model:
        A run folder (its own held-out sentences are used), or a model together with --data.evaluation FILE; more of them may follow.
    against:
        The model that the others are compared with.
    output:
        Write all scores: as JSON for one model, into a folder with tables (JSON, CSV, Markdown, LaTeX) for several.
    allow_overlap:
        Score also on sentences that a run was trained on.
    """
    if output is not None:
        check_place(output if output.suffix == ".json" else output / "comparison.json")
    from alignx_fast.verbs.evaluate import score

    more = list(itertools.takewhile(lambda token: not token.startswith("--"), settings))
    overrides = overrides_from(settings[len(more) :])
    score([model, *map(os.path.expanduser, more)], overrides, against=against, output=output, allow_overlap=allow_overlap)


@app.command
def study(
    file: Annotated[str, Parameter(help="A study name (see `alignx-fast recipes`) or a YAML file.")],
    *settings: Overrides,
    output: HomePath | None = None,
    jobs: Annotated[int, Parameter(validator=Number(gte=1))] = 1,
    smoke: bool = False,
) -> None:
    """Train and score variants of a run with several seeds, and compare them on one page. The same command goes on after a stop.

    Any setting that the variants share can be given as --group.setting value, for example --model.path FOLDER.

    Parameters
    ----------
    output:
        Study folder in place of the file's.
    jobs:
        Runs at the same time; they share the threads of this machine.
    smoke:
        Run the study's small version, which shows in minutes that everything works.
    """
    from alignx_fast.recipes import find_study
    from alignx_fast.verbs.study import study as run

    if not run(find_study(file), overrides_from(settings), output=output, jobs=jobs, smoke=smoke):
        sys.exit(1)


@app.command
def translate(model: Trained, *text: str, to: str, source: Annotated[str, Parameter(name=["--from", "--source"])] = "en") -> None:
    """Translate sentences with a trained model; without TEXT, one line of standard input at a time.

    Parameters
    ----------
    model:
        A run folder or a model.
    text:
        Sentences, each in quotes.
    to:
        Code of the language to translate into.
    source:
        Code of the language of the text.
    """
    from alignx_fast.verbs.translate import translate_lines

    translate_lines(model, list(text) or None, source, to)


@app.command
def export(model: Trained, folder: HomePath) -> None:
    """Merge adapters into a plain Hugging Face folder and say how far its logits are from the trained model's.

    Parameters
    ----------
    model:
        A run folder or an adapter folder.
    folder:
        Where to write; must not exist.
    """
    if folder.is_symlink():
        raise UserError(f"{folder} is a link; give a new folder.")
    if not folder.exists():
        check_place(folder)
    from alignx_fast.verbs.export import export_model

    export_model(model, folder)


@app.command
def report(run: HomePath) -> None:
    """Write report.html of a run folder, finished or not.

    Parameters
    ----------
    run:
        A run folder.
    """
    from alignx_fast.report.write import write_report

    print(write_report(run))


@app.command
def cache(folder: HomePath = Path("~/.cache/alignx-fast"), *, max_size: str | None = None, max_age: str | None = None) -> None:
    """List the tokenised data that is kept between runs, or remove what lies beyond a bound; never what is in use.

    Parameters
    ----------
    folder:
        What data.cache_dir names.
    max_size:
        Keep at most so much, such as 5GB; what was not used for longest goes first.
    max_age:
        Keep what was used within this time, such as 30d.
    """
    from alignx_fast.verbs.cache import manage

    manage(folder.expanduser(), max_size, max_age)


@app.command
def doctor() -> None:
    """What this machine has, what will be used of it, and what to install."""
    from alignx_fast.verbs.doctor import examine

    examine()


@app.command
def schema() -> None:
    """Print the JSON schema of the settings, by which editors complete and check a recipe."""
    from alignx_fast.verbs.schema import schema_text

    print(schema_text(), end="")


@recipes_app.default
def recipes_list() -> None:
    """List recipes and studies."""
    from alignx_fast.recipes import names, purpose, study_names

    width = max(map(len, names()))
    for name in names():
        print(f"{name:{width}}  {purpose(name)}")
    print("\nStudies, for `alignx-fast study`:")
    for name in study_names():
        print(f"{name:{width}}  {purpose(name)}")


@recipes_app.command(name="show")
def recipes_show(name: str, *, all: bool = False) -> None:
    """Print a recipe.

    Parameters
    ----------
    name:
        A recipe name or a YAML file.
    all:
        Print every setting with its value instead.
    """
    import yaml

    from alignx_fast.config import load_settings
    from alignx_fast.recipes import find

    file = find(name)
    print(
        yaml.safe_dump(load_settings(file).model_dump(mode="json"), sort_keys=False) if all else file.read_text(encoding="utf-8")
    )


@recipes_app.command(name="copy")
def recipes_copy(name: str, target: HomePath = Path()) -> None:
    """Copy a recipe or a study to a file or folder to change it there, and the schema of the settings beside a recipe.

    Parameters
    ----------
    name:
        A recipe name, a study name or a YAML file.
    target:
        A new file or a folder; nothing is overwritten.
    """
    from alignx_fast.recipes import copy

    print(copy(name, target))
