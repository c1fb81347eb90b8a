"""Makes `.typing/modelwright/FOLDER` links, through which mypy and pyright find the installed names.

Static checkers do not follow the import hooks of an editable install, and the top level holds the folders themselves.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("cli", "compression", "core", "examples", "exporters", "harness", "profiles", "targets")


def main() -> None:
    """Makes the links anew."""
    package = ROOT / ".typing" / "modelwright"
    package.mkdir(parents=True, exist_ok=True)
    for name in FOLDERS:
        link = package / name
        if not link.is_symlink():
            link.symlink_to(Path("../..") / name, target_is_directory=True)


if __name__ == "__main__":
    main()
