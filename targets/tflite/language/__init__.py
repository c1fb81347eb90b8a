"""Language models in LiteRT: the file is written here, operator by operator, from the exported graph."""
