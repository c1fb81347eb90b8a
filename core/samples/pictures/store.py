"""A folder of pictures made into a sample file, in a child of bounded memory: one picture at a time is held."""

from __future__ import annotations

import contextlib
import hashlib
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from modelwright.core.errors import BadInputError
from modelwright.core.files import write_json
from modelwright.core.process.child import Progress, run_in_child
from modelwright.core.records.codec import decode, encode
from modelwright.core.records.pictures import PICTURES_FILE, Pictures, Preprocess
from modelwright.core.records.signature import Signature
from modelwright.core.samples.archives import array_file_name
from modelwright.core.samples.npy import NpyWriter
from modelwright.core.samples.pictures.decode import MOST_BYTES, UnreadableError, decode_picture, import_pillow
from modelwright.core.samples.pictures.folder import NO_LABELS, Listing, list_pictures
from modelwright.core.samples.pictures.folders import HASHES_FILE
from modelwright.core.samples.pictures.settle import settle
from modelwright.core.samples.pictures.transform import make_transform
from modelwright.core.samples.pictures.wishes import parse_wishes
from modelwright.core.samples.sample_set import LABELS, SPLIT_SEED, count_classes
from modelwright.core.samples.source import SampleSource
from modelwright.core.scratch import staged_directory
from modelwright.core.system_errors import explain_os_error

_MEMORY_BYTES = 4 * 2**30
_UNREADABLE_SHARE = 0.1
"""More pictures than this that cannot be read are no accident: the folder is another than it seems."""
_NAMED = 5
_DISK_SHARE = 0.8


def materialize_pictures(
    source: SampleSource,
    signature: Signature | None,
    directory: Path,
    *,
    limit: int,
    progress: Progress | None = None,
) -> Path:
    """Makes samples of a folder of pictures: a folder of `.npy` files, with `Pictures` beside them.

    Args:
        source: The folder, and what is done to its pictures.
        signature: Of the model; None before it is known.
        directory: The folder to make; there is either all of it or nothing.
        limit: Of more pictures, so many are taken, chosen by a fixed seed.
        progress: Takes a line now and then.

    Raises:
        BadInputError: No pictures, too many that cannot be read, or classes that are not the model's.
        SignatureNeededError: Not all is said, and the model is not known yet.
        ToolchainMissingError: Pillow is not installed.
        UsageError: What is said of preprocessing makes no sense, or does not fit the model.
    """
    assert source.preprocess is not None
    preprocess = settle(parse_wishes(source.preprocess), signature)
    if source.labels not in (None, NO_LABELS) and not Path(str(source.labels)).is_file():
        raise BadInputError(f"no such file: {source.labels}", hint="give a text file with one class a line")
    with staged_directory(directory) as staging:
        run_in_child(
            "modelwright.core.samples.pictures.store:store_in_child",
            {
                "folder": source.text,
                "labels": source.labels,
                "class_count": None if signature is None else count_classes(signature),
                "preprocess": encode(preprocess),
                "directory": str(staging),
                "limit": limit,
            },
            purpose=f"reading the pictures of {source.text}",
            crash_error=BadInputError,
            progress=progress,
        )
    return directory


def store_in_child(
    folder: str,
    labels: str | None,
    class_count: int | None,
    preprocess: dict[str, Any],
    directory: str,
    limit: int,
    progress: Progress,
) -> None:
    """Child side of `materialize_pictures`."""
    import_pillow()
    _bound_memory()
    wanted, root, made = decode(Preprocess, preprocess), Path(folder), Path(directory)
    with explain_os_error(root):
        progress(f"listing {folder}")
        listing = list_pictures(root, labels=labels, class_count=class_count)
    order = np.arange(len(listing.files))
    if len(order) > limit:
        order = np.random.default_rng(SPLIT_SEED).permutation(len(order))
    _require_disk(made, wanted, min(len(order), limit))
    with explain_os_error(made):
        record, digests = _store(root, listing, order, wanted, made, limit, progress)
        write_json(made / PICTURES_FILE, encode(record))
        (made / HASHES_FILE).write_text("\n".join(digests), encoding="ascii")


def _store(
    root: Path, listing: Listing, order: Any, wanted: Preprocess, made: Path, limit: int, progress: Progress
) -> tuple[Pictures, list[str]]:
    transform, digests, unreadable, tried = make_transform(wanted), dict[str, int | None](), [], 0
    contradicting: list[str] = []
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(
            NpyWriter(made / array_file_name(wanted.input), np.dtype(wanted.dtype), wanted.row_shape)
        )
        numbers = (
            None
            if listing.numbers is None
            else stack.enter_context(NpyWriter(made / array_file_name(LABELS), np.dtype(np.int64), ()))
        )
        for place in order:
            if len(digests) == limit:
                break
            path = listing.files[place]
            name = path.relative_to(root).as_posix()
            progress(f"{name} (picture {tried + 1} of {len(order)})")
            tried += 1
            number = None if listing.numbers is None else listing.numbers[place]
            try:
                content = _read(path)
                digest = hashlib.sha256(content).hexdigest()
                if digest in digests:
                    contradicting += [name] if digests[digest] != number else []
                    continue
                picture = decode_picture(content, wanted.channels, wanted.alpha)
                values = transform(picture)
            except UnreadableError as error:
                unreadable.append(f"{name}: {error}")
                continue
            except BadInputError as error:
                raise BadInputError(f"{root / name}: {error.message}", hint=error.hint) from error
            digests[digest] = number
            writer.append(values)
            if numbers is not None:
                numbers.append(np.asarray(number, np.int64))
    _require_readable(root, unreadable, tried)
    if contradicting:
        raise BadInputError(
            f"{root}: {len(contradicting)} pictures lie in two classes, such as {contradicting[0]}",
            hint="take each out of the class that it is not of",
        )
    record = Pictures(
        preprocess=wanted,
        classes=listing.classes,
        order=listing.order,
        lonely=listing.lonely,
        taken=len(digests),
        left=len(order) - tried,
        copies=tried - len(digests) - len(unreadable),
        unreadable=tuple(map(_clean, unreadable[:_NAMED])),
        unreadable_count=len(unreadable),
        others=tuple(map(_clean, listing.others[:1])),
        others_count=len(listing.others),
    )
    return record, list(digests)


def _read(path: Path) -> bytes:
    if not path.is_file():  # a pipe, which would be waited for, or a link that leads nowhere
        raise UnreadableError("it is no file" if path.exists() else "it is a link to a file that is not there")
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UnreadableError(error.strerror or str(error)) from error
    if not content:
        raise UnreadableError("it is empty")
    if len(content) > MOST_BYTES:
        raise UnreadableError(f"it is larger than {MOST_BYTES / 2**20:.0f} MiB")
    return content


def _require_readable(root: Path, unreadable: list[str], tried: int) -> None:
    if len(unreadable) <= _UNREADABLE_SHARE * tried:
        return
    raise BadInputError(
        f"{len(unreadable)} of {tried} pictures of {root} cannot be read: {'; '.join(unreadable[:_NAMED])}",
        hint="take them out, or save them again as PNG or JPEG; up to a tenth that cannot be read are left out",
    )


def _require_disk(directory: Path, wanted: Preprocess, count: int) -> None:
    needed = count * math.prod(wanted.row_shape) * np.dtype(wanted.dtype).itemsize
    free = shutil.disk_usage(directory).free
    if needed > _DISK_SHARE * free:
        raise BadInputError(
            f"{count:,} pictures of {list(wanted.row_shape)} in {wanted.dtype} take {needed / 1e9:,.1f} GB, and "
            f"{directory.parent} has {free / 1e9:,.1f} GB left",
            hint="give a folder with fewer pictures, or free some space",
        )


def _bound_memory() -> None:
    """Lets this process have no more than a picture of the largest size takes."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _clean(text: str) -> str:
    """Returns a line that a record takes."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:200]
