"""A folder with an encoder, its card and its recipe, as it can be shared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from lit_ssl.checkpoints.card_texts import (
    last_word,
    page_without_places,
    without_places,
    writable,
)
from lit_ssl.checkpoints.encoder_to_export import Exportable
from lit_ssl.checkpoints.export_folder import fill_timm_folder
from lit_ssl.checkpoints.export_transformers import fill_transformers_folder
from lit_ssl.checkpoints.model_card import CONFIG_NAME, model_card
from lit_ssl.checkpoints.run_files import Report, read_run_config
from lit_ssl.checkpoints.transformers_names import Counterpart
from lit_ssl.checkpoints.whole_folder import new_folder
from lit_ssl.files import read_text, write_file

__all__ = ["write_shared_folder"]

_CUT = "# Places on the machine of the training are cut to their last part.\n"
_PAGE = "index.html"


def write_shared_folder(
    encoder: Exportable,
    out: Path,
    kind: Literal["folder", "transformers"],
    run: Path | None = None,
    licence: str | None = None,
    report: Report | None = None,
    repository: str | None = None,
) -> list[tuple[str, str]]:
    """Write weights, configuration, card and recipe of an encoder into a new folder.

    Args:
        encoder: what to write.
        out: the folder, which is not there or empty.
        kind: "folder" for timm (or this package, where timm does not have the network),
            "transformers" for transformers.
        run: folder of the run, whose ``config.yaml`` is taken; None: what the checkpoint says.
        licence: of the weights; None is said.
        report: what was measured; None is said.
        repository: ``USER/NAME`` where it is going to be found; None: in this folder.

    Returns:
        Libraries, and the Python code by which each loads it.

    Raises:
        InputError: if something is there, it cannot be written, or what is loaded from it computes
            other features.
    """
    with new_folder(out) as folder:
        if kind == "transformers":
            found = fill_transformers_folder(encoder, folder)
            library = "transformers"

            def loading(place: Path) -> list[tuple[str, str]]:
                return _of_transformers(found, place, repository)
        else:
            fill_timm_folder(encoder, folder)
            library = "timm" if encoder.is_of_timm else "lit_ssl"

            def loading(place: Path) -> list[tuple[str, str]]:
                return _of_timm(encoder, place, repository)

        config = _config(encoder, run)
        if config is not None:
            text = _CUT + yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
            _write(folder / CONFIG_NAME, text)
        if report is not None and report.page is not None:
            known = (report.places, {} if run is None else read_run_config(run), encoder.recipe)
            page = page_without_places(read_text(report.page), *known)
            _write(folder / _PAGE, page)
        files = [path.name for path in folder.iterdir()]
        # others have the folder, and not the places above it
        own = loading(Path(out.name or "."))
        _write(folder / "README.md", model_card(encoder, own, library, licence, report, files))
    return loading(out)


def _write(path: Path, text: str) -> None:
    text = writable(text)
    write_file(path, lambda file: file.write(text))


def _of_transformers(
    found: Counterpart, out: Path, repository: str | None
) -> list[tuple[str, str]]:
    place = repr(repository or str(out))
    code = (
        f"from transformers import AutoImageProcessor, {found.kind}\n\n"
        f"processor = AutoImageProcessor.from_pretrained({place})\n"
        f"model = {found.kind}.from_pretrained({place}).eval()\n"
        f'inputs = processor(images, return_tensors="pt")\n'
        f"features = model(**inputs){found.features}"
    )
    return [("transformers", code)]


def _of_timm(encoder: Exportable, out: Path, repository: str | None) -> list[tuple[str, str]]:
    own = f"hf-hub:{repository}" if repository else str(out)
    code = f"import lit_ssl\n\nmodel = lit_ssl.models.load_exported({own!r})"
    loading = [("lit_ssl", code)]
    if encoder.is_of_timm:
        place = own if repository else f"local-dir:{out}"
        timm = "timm" if repository else "timm 1.0.26 or later"
        code = f"import timm\n\nmodel = timm.create_model({place!r}, pretrained=True).eval()"
        loading.insert(0, (timm, code))
    return loading


def _config(encoder: Exportable, run: Path | None) -> Any:
    """The recipe without places: the run's config, or else what the checkpoint itself says."""
    if run is not None:
        return without_places(read_run_config(run))
    recipe = encoder.recipe
    config = {name: _object(recipe[name]) for name in ("model", "data") if recipe.get(name)}
    return without_places(config) if config else None


def _object(hparams: Mapping[str, Any]) -> dict[str, Any]:
    args = {name: _plain(v) for name, v in hparams.items() if not name.startswith("_")}
    path = hparams.get("_class_path")
    return {"class_path": str(path), "init_args": args} if path and last_word(str(path)) else args


def _plain(value: Any) -> Any:
    """A value that YAML can hold: others by what they print."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    return value if isinstance(value, bool | int | float | str | None) else str(value)
