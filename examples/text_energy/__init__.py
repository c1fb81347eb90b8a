"""An energy study of text models: every precision, batch and trial of a model, a row and a file each."""
