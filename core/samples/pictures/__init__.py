"""Pictures as samples: found in a folder, decoded in a bounded child, and made into what a model takes."""
