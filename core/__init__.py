"""What exporters, targets, profiles and the harness all speak: errors, signatures, samples, artifacts, children."""
