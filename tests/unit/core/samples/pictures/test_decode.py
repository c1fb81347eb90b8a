"""Pictures of every mode, turned ones, and what is no whole picture."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from modelwright.core.samples.pictures.decode import UnreadableError, decode_picture


def save(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def read(content: bytes, channels: Any = "rgb", alpha: Any = "drop") -> Any:
    return np.asarray(decode_picture(content, channels, alpha))


RED = Image.new("RGB", (3, 2), (200, 30, 40))


def test_a_palette_is_looked_up() -> None:
    palette = Image.new("P", (3, 2), 1)
    palette.putpalette([0, 0, 0, 200, 30, 40])
    assert (read(save(palette)) == (200, 30, 40)).all()
    gray = (299 * 200 + 587 * 30 + 114 * 40) / 1000
    assert abs(int(read(save(palette), "gray")[0, 0]) - gray) <= 1, "the palette's colour, not its number"
    assert (read(save(palette, "GIF"))[0, 0] == (200, 30, 40)).all()


def test_transparent_pixels_keep_their_colour_or_show_what_is_under_them() -> None:
    clear = Image.new("RGBA", (2, 1), (200, 30, 40, 0))
    half = Image.new("RGBA", (2, 1), (100, 100, 100, 128))
    assert read(save(clear))[0, 0].tolist() == [200, 30, 40], "as torchvision's loader does"
    assert read(save(clear), alpha="white")[0, 0].tolist() == [255, 255, 255]
    assert read(save(clear), alpha="black")[0, 0].tolist() == [0, 0, 0]
    assert read(save(half), alpha="black")[0, 0].tolist() == [50, 50, 50]
    assert read(save(half), "gray", alpha="white")[0, 0] == 177
    see_through = Image.new("P", (1, 1), 0)
    see_through.putpalette([10, 20, 30])
    assert read(save(see_through, transparency=0), alpha="white")[0, 0].tolist() == [255, 255, 255]


def test_sixteen_bits_become_eight() -> None:
    wide = Image.fromarray(np.array([[0, 256, 65535, 32768]], np.uint16))
    assert wide.mode == "I;16"
    assert read(save(wide), "gray").tolist() == [[0, 1, 255, 128]]
    assert read(save(wide))[0, 3].tolist() == [128, 128, 128]
    assert read(save(wide, "TIFF"), "gray").tolist() == [[0, 1, 255, 128]]


def test_cmyk_is_converted_and_bits_are_black_and_white() -> None:
    ink = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    assert np.abs(read(save(ink, "JPEG", quality=100)).astype(int) - (0, 255, 255)).max() <= 3, "cyan"
    assert read(save(Image.new("1", (2, 2), 1)), "gray").tolist() == [[255, 255], [255, 255]]


@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (1, 2)), (6, (0, 1)), (8, (2, 0))])
def test_exif_turns_a_picture_upright(orientation: int, corner: tuple[int, int]) -> None:
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = read(save(Image.fromarray(pixels), exif=exif))
    assert turned.shape[:2] == ((3, 2) if orientation in (6, 8) else (2, 3))
    assert np.argwhere(turned[:, :, 0] == 255).tolist() == [list(corner)]


def test_damaged_exif_data_leave_the_picture_as_it_is() -> None:
    content = save(RED, "PNG", exif=b"Exif\x00\x00not TIFF at all")
    assert (read(content) == (200, 30, 40)).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"])
def test_a_file_that_is_cut_off_is_none(kind: str) -> None:
    rng = np.random.default_rng(0)
    content = save(Image.fromarray(rng.integers(0, 255, (40, 40, 3)).astype(np.uint8)), kind)
    assert read(content).shape == (40, 40, 3)
    with pytest.raises(UnreadableError):
        read(content[: len(content) // 2])


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 2**20))
        + chunk(b"IEND", b"")
    )
    with pytest.raises(UnreadableError, match="more than 134 million pixels"):
        read(bomb)


def test_what_takes_too_long_is_ended(tmp_path: Path) -> None:
    """In a process of its own: where OpenVINO has run, a signal that is handled ends the process."""
    (tmp_path / "slow.jpg").write_bytes(save(Image.new("RGB", (2000, 2000)), "JPEG", progressive=True))
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from modelwright.core.samples.pictures import decode\n"
        "decode.LONGEST_S = 1e-6\n"
        "try:\n"
        "    decode.decode_picture(Path(sys.argv[1]).read_bytes(), 'rgb', 'drop')\n"
        "except decode.UnreadableError as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "slow.jpg")]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert told == "it takes longer than 1e-06 s to decode\n"


def test_what_is_no_picture_is_said_to_be_none() -> None:
    with pytest.raises(UnreadableError, match="it is no picture"):
        read(b"\x89PNG but no more")
    with pytest.raises(UnreadableError, match="it is no picture"):
        read(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")  # Pillow would give it to another program
    with pytest.raises(UnreadableError, match="32 bits"):
        read(save(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"))
