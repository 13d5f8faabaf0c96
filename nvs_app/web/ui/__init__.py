"""What the browser gets: templates, styles and scripts of the page."""
