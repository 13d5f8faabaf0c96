"""How images are rendered: `renderer` is the only way from photos to views, `plan` decides at which sizes."""
