"""The kinds of numbers in records of results.

Their bounds are those of figures that some machine could show. A file from elsewhere that exceeds them is refused where
it is read, so that nothing after it needs to ask whether a number is one.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

Figure = Annotated[float, Meta(ge=0, le=1e15)]
"""A quantity in its unit: milliseconds, joules, grams."""
Number = Annotated[float, Meta(ge=-1e15, le=1e15)]
Ratio = Annotated[float, Meta(ge=1e-12, le=1e12)]
LogRatio = Annotated[float, Meta(ge=-28, le=28)]
"""The natural logarithm of a ratio."""
