"""Arrays in files have their place on the disk before anything is written into them."""

from pathlib import Path

import numpy as np

from modelwright.core.mapped import create_mapped


def test_the_place_on_the_disk_is_taken_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    array = create_mapped(path, np.float32, (1024, 1024))
    facts = path.stat()
    assert facts.st_size == 128 + 4 * 1024**2
    assert facts.st_blocks * 512 >= facts.st_size
    array[3] = 7
    array.flush()
    found = np.load(path)
    assert (found[3] == 7).all()
    assert not found[4:].any()
