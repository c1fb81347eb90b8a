"""Whether the machine is a virtual one."""

from __future__ import annotations

import re
from pathlib import Path

from modelwright.profiles.kernel_files import read_text

# Firmware strings of the hypervisors and clouds that systemd-detect-virt knows, and of some more.
_VIRTUAL_FIRMWARE = re.compile(
    r"KVM|QEMU|Bochs|VMware|VirtualBox|innotek|Parallels|Xen|HVM domU|Virtual Machine|BHYVE|Hyper-V"
    r"|Amazon EC2|Google Compute Engine|OpenStack|Droplet|Firecracker|Cloud Hypervisor",
    re.IGNORECASE,
)
_VIRTUAL_BOARD = re.compile(r"dummy-virt|qemu|xen|kvm", re.IGNORECASE)


def is_virtual_machine(root: Path, *, instruction_sets: frozenset[str], board: str | None) -> bool | None:
    """Returns whether the machine is virtual, None when nothing tells.

    Args:
        root: Of the file system; another than `/` in tests.
        instruction_sets: Of the CPU; on x86 hypervisors announce themselves among them.
        board: The device-tree model.
    """
    if "hypervisor" in instruction_sets or (root / "proc/device-tree/hypervisor").exists():
        return True
    firmware = [read_text(root / "sys/class/dmi/id" / name) for name in ("product_name", "sys_vendor")]
    names = " ".join(name for name in firmware if name)
    # EC2's bare-metal machines carry Amazon's name too, and `.metal` in that of the product.
    if _VIRTUAL_FIRMWARE.search(names) and ".metal" not in names:
        return True
    if board is not None:
        return _VIRTUAL_BOARD.search(board) is not None
    # Real x86 CPUs leave the flag clear, so its absence is an answer; Arm has no such flag.
    return False if names or "sse2" in instruction_sets else None


def read_board(root: Path) -> str | None:
    """Returns the device-tree model, such as `Raspberry Pi 5 Model B Rev 1.0`; None without one."""
    for name in ("proc/device-tree/model", "sys/firmware/devicetree/base/model"):
        model = read_text(root / name)
        if model:
            return model
    # QEMU's virt machine has a compatible entry but no model.
    return read_text(root / "proc/device-tree/compatible") or None
