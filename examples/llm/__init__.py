"""A language model that a package ships: exported, built, judged and measured by `make llm`."""
