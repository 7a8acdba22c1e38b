"""Checks a release: builds wheel and sdist, looks into both, and runs the demo out of each.

``make release-check``, or ``python tests/environments/release.py [--whole]``: by default the demo
is cut to four batches and one epoch; ``--whole`` runs all of it. Builds from the files that git
knows, in build/release; nothing is uploaded.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

from packaging.metadata import Metadata

sys.path.insert(0, str(Path(__file__).parents[1] / "package"))
sys.path.insert(0, str(Path(__file__).parents[2] / "docs" / "site"))
from links import relative
from wheel_files import wheel_files

ROOT = Path(__file__).parents[2]
WORK = ROOT / "build" / "release"
CUT = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "4"]
# Of no use outside of the repository.
LEFT_OUT = (".ci/", ".github/", ".gitignore", ".pre-commit-config.yaml")


class Fault(SystemExit):
    """What is wrong with a release, in one line."""


def run(*words, cwd=WORK):
    """Run a program; returns what it prints."""
    print("$", *(Path(str(word)).name if str(word).startswith("/") else word for word in words))
    done = subprocess.run([str(word) for word in words], cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise Fault(f"{done.stdout[-2000:]}{done.stderr[-4000:]}\nfailed: {words[0]}")
    return done.stdout


def copy_tree(to):
    """The files that git knows or would, so that nothing else gets into the archives."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = run(*words, cwd=ROOT).splitlines()
    for name in names:
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)
    return {name for name in names if (to / name).is_file()}


def check_names(found, expected, what):
    """No file is missing, and none is there that no one asked for."""
    if missing := sorted(expected - found):
        raise Fault(f"{what} lacks {len(missing)} files: {', '.join(missing[:8])}")
    if more := sorted(found - expected):
        raise Fault(f"{what} has {len(more)} files too many: {', '.join(more[:8])}")
    print(f"{what}: {len(found)} files")


def check_metadata(content, version, what):
    """Valid, with licence, and a description that package indexes can show."""
    found = Metadata.from_email(content, validate=True)
    if str(found.version) != version or found.license_expression != "Apache-2.0":
        raise Fault(f"{what}: version {found.version}, licence {found.license_expression}")
    if found.license_files != ["LICENSE"]:
        raise Fault(f"{what} names the licence files {found.license_files}")
    text = message_from_bytes(content)
    if found.description_content_type != "text/markdown" or len(str(text.get_payload())) < 1000:
        raise Fault(f"{what} has no README as its description")
    return found


def check_address(metadata, what):
    """The description leads on where only it is shown."""
    if links := relative(metadata.description):
        raise Fault(
            f"{what}: {len(links)} links of the README, such as {links[0]}, lead nowhere on "
            "package indexes: write the repository's public address into pyproject.toml, "
            "[project.urls] Source. All else was checked and is right."
        )


def check_wheel(path, tree, version):
    """All modules, recipes and lists, and the licence."""
    with zipfile.ZipFile(path) as archive:
        info = f"lit_ssl-{version}.dist-info"
        check_names(
            {name for name in archive.namelist() if not name.startswith(info)},
            wheel_files(tree),
            path.name,
        )
        archive.getinfo(f"{info}/licenses/LICENSE")
        return check_metadata(archive.read(f"{info}/METADATA"), version, path.name)


def check_sdist(path, names, version):
    """Everything in the repository but what is for the repository alone."""
    with tarfile.open(path) as archive:
        top = f"lit_ssl-{version}/"
        files = {m.name.removeprefix(top): m for m in archive.getmembers() if m.isfile()}
        made = {n for n in files if n in ("PKG-INFO", "setup.cfg") or ".egg-info/" in n}
        expected = {name for name in names if not name.startswith(LEFT_OUT)}
        check_names(set(files) - made, expected, path.name)
        check_metadata(archive.extractfile(files["PKG-INFO"]).read(), version, path.name)


def try_it(archive, version, recipes, words):
    """Install an archive into an empty environment, and use it in an empty folder."""
    kind = "wheel" if archive.suffix == ".whl" else "sdist"
    environment, folder = WORK / f"env_{kind}", WORK / f"used_{kind}"
    folder.mkdir()
    run(sys.executable, "-m", "venv", environment)
    run(environment / "bin" / "python", "-m", "pip", "install", "--quiet", f"{archive}[demo]")
    run(environment / "bin" / "python", "-m", "pip", "check")
    program = environment / "bin" / "lit-ssl"
    if (said := run(program, "--version", cwd=folder).strip()) != f"lit-ssl {version}":
        raise Fault(f"{kind}: `lit-ssl --version` says {said}")
    if (count := len(run(program, "configs", cwd=folder).splitlines())) != recipes:
        raise Fault(f"{kind}: {count} recipes, not {recipes}")
    where = ["--trainer.default_root_dir", "runs"]
    demo = ["--config", "msn/mnist5k.yaml"]
    run(program, "fit", *demo, *where, *words, cwd=folder)
    test = ["--config", "eval/mnist5k.yaml", "--ckpt_path", "last"]
    said = run(program, "test", *demo, *where, *test, cwd=folder)
    print("\n".join(said.splitlines()[-12:]))
    shutil.rmtree(environment)  # some gigabytes


def main(whole):
    """Run all checks."""
    shutil.rmtree(WORK, ignore_errors=True)
    tree, out = WORK / "tree", WORK / "dist"
    tree.mkdir(parents=True)
    names = copy_tree(tree)
    scope = {}
    exec((tree / "lit_ssl" / "version.py").read_text(encoding="utf-8"), scope)
    version = scope["__version__"]
    run(sys.executable, "-m", "build", "--outdir", out, tree)
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    metadata = check_wheel(wheel, tree, version)
    check_sdist(sdist, names, version)
    recipes = sum(name.startswith("cli_configs/") and name.endswith(".yaml") for name in names)
    for archive in (wheel, sdist):
        try_it(archive, version, recipes, [] if whole else CUT)
    check_address(metadata, wheel.name)
    print(f"ready: {wheel.name}, {sdist.name} in {out.relative_to(ROOT)}")


if __name__ == "__main__":
    main("--whole" in sys.argv[1:])
