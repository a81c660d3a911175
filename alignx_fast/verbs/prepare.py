"""`alignx-fast prepare`: a recipe's corpus, or one file, as a folder that training reads."""

from pathlib import Path

from alignx_fast.config import Settings, load_settings
from alignx_fast.corpora.run import prepare
from alignx_fast.data.prepared import CARD_FILE
from alignx_fast.files import read_json
from alignx_fast.lock import only_writer
from alignx_fast.recipes import find, names


def settings_for(recipe: str, overrides: dict[str, object]) -> Settings:
    """The settings of a recipe, or those for one file: its pairs go to data/NAME.

    Raises:
        UserError: neither a recipe nor a file.
    """
    if recipe in names() or recipe.endswith((".yaml", ".yml")):
        return load_settings(find(recipe), overrides)
    file = Path(find(recipe))
    given: dict[str, object] = {"corpus.sources": [{"path": str(file)}], "corpus.output": f"data/{file.name.partition('.')[0]}"}
    return load_settings(None, given | overrides)


def prepare_corpus(settings: Settings) -> None:
    """Prepare, and say in a few lines what was kept and what was dropped."""
    with only_writer(settings.corpus.output, "--corpus.output"):
        folder = prepare(settings)
    card = read_json(folder / CARD_FILE)
    print(f"{folder}: {card['rows']['kept']:,} of {card['rows']['read']:,} rows, {card['meanings']['count']:,} meanings")
    for drop in card["drops"]:
        print(f"  {drop['rows']:>12,}  {drop['reason']}")
    print(f"Train on it with data.parallel: [{{path: {folder}}}]")
