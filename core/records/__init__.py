"""The records that rooms hand to each other: signatures, shapes, machines, exports, artifacts."""
