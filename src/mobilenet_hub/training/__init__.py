"""From labelled photos to a module folder with its report."""
