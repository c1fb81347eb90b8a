"""Files of texts: read, tokenized and made into samples."""
