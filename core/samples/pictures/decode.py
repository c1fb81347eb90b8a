"""One picture's bytes into its pixels, upright and with 8 bits a channel. For child processes: pictures are hostile."""

from __future__ import annotations

import contextlib
import io
import signal
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from modelwright.core.errors import ToolchainMissingError
from modelwright.core.records.pictures import Alpha, Channels

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PIXELS = 2**27
"""134 million: more than any camera takes; 400 MB of memory."""
MOST_BYTES = 2**28
LONGEST_S = 60.0
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
"""Those that cameras, browsers and data sets write; Pillow's others start programs or are rarely tried."""
_WIDE_MODES = ("I;16", "I;16B", "I;16L", "I;16N")
_UNDER = {"white": 255, "black": 0}


class UnreadableError(Exception):
    """A file is no whole picture; the text says why."""


def import_pillow() -> Any:
    """Returns Pillow's module `Image`.

    Raises:
        ToolchainMissingError: It is not installed, or broken.
    """
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise ToolchainMissingError(
            "pictures need Pillow, which is not installed", hint="pip install pillow"
        ) from error
    except Exception as error:  # a broken binary raises whatever it may
        raise ToolchainMissingError("Pillow is installed but does not import", detail=str(error)) from error
    return Image


def decode_picture(content: bytes, channels: Channels, alpha: Alpha) -> Image:
    """Returns a picture in the mode `RGB` or `L`.

    Raises:
        UnreadableError: Not a picture, damaged, cut off, or too large.
    """
    pillow = import_pillow()
    try:
        with _limited(LONGEST_S), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pillow.MAX_IMAGE_PIXELS = MOST_PIXELS // 2  # Pillow refuses twice as many
            with pillow.open(io.BytesIO(content), formats=_known_formats(pillow)) as picture:
                picture.load()
                return convert(turn_upright(picture), channels, alpha)
    except UnreadableError:
        raise
    except pillow.DecompressionBombError as error:
        raise UnreadableError(f"it has more than {MOST_PIXELS / 1e6:.0f} million pixels") from error
    except MemoryError as error:
        raise UnreadableError("it asks for too much memory") from error
    except Exception as error:  # decoders raise whatever they may
        # Pillow's own words for what it does not know name an object in memory.
        unknown = isinstance(error, pillow.UnidentifiedImageError)
        told = "it is no picture" if unknown else " ".join(str(error).split())[:100]
        raise UnreadableError(told or type(error).__name__) from error


def turn_upright(picture: Image) -> Image:
    """Returns a picture as its EXIF orientation says; one whose EXIF data are damaged as it is."""
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(picture)
    except UnreadableError:  # its time is over
        raise
    except Exception:  # whatever a reader of EXIF data stumbles over, the pixels are there
        return picture


def convert(picture: Image, channels: Channels, alpha: Alpha) -> Image:
    """Returns a picture with 8 bits a channel, in the mode `L` for gray and `RGB` for others.

    Args:
        picture: In any mode of Pillow's.
        channels: That are wanted.
        alpha: What transparent pixels become.

    Raises:
        UnreadableError: Values of 32 bits, of which nobody says what is white.
    """
    wanted = "L" if channels == "gray" else "RGB"
    if picture.mode in _WIDE_MODES:
        picture = _take_high_bytes(picture)
    elif picture.mode in ("I", "F"):
        raise UnreadableError("its values have 32 bits, and nothing says which is white")
    transparent = "A" in picture.getbands() or "a" in picture.getbands() or "transparency" in picture.info
    if transparent and alpha != "drop":
        from PIL import Image

        layer = picture.convert("RGBA")
        under = Image.new("RGBA", layer.size, (_UNDER[alpha],) * 3 + (255,))
        picture = Image.alpha_composite(under, layer)
    if picture.mode == "P" and wanted == "L":
        picture = picture.convert("RGB")
    return picture.convert(wanted)


def _take_high_bytes(picture: Image) -> Image:
    """Returns gray values of 16 bits in 8, as Pillow itself does with colours of 16 bits."""
    import numpy as np
    from PIL import Image

    return Image.fromarray((np.asarray(picture).astype(np.uint16) >> 8).astype(np.uint8))


def _known_formats(pillow: Any) -> list[str]:
    pillow.init()
    return [name for name in _FORMATS if name in pillow.OPEN]


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Ends what takes too long, where signals can: between the blocks that decoders read."""

    def stop(_number: int, _frame: Any) -> None:
        raise UnreadableError(f"it takes longer than {seconds:g} s to decode")

    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
