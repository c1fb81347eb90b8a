"""What a runtime's own allocator holds of an accelerator's memory."""

from __future__ import annotations

from modelwright.core.records.codec import Count, Record


class DeviceMemory(Record, kw_only=True):
    """Bytes that a runtime's allocator keeps account of; its context and libraries take more, which it does not see.

    Attributes:
        allocated_bytes: In use now: weights, bound inputs and what the runtime keeps.
        peak_bytes: The most that were ever in use, with what an inference needs in between.
        reserved_bytes: Taken from the driver, in use or not.
    """

    allocated_bytes: Count
    peak_bytes: Count
    reserved_bytes: Count
