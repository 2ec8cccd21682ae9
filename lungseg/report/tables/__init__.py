"""Pages and their tables in Markdown, CSV and TeX."""
