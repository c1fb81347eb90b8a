"""Folders of transformers whose models read texts and write none: classes, classes of tokens, vectors."""
