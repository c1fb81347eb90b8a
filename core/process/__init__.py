"""Child processes: whatever is heavy, hostile or crash-prone runs in one."""
