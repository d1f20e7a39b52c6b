"""Files that people read: tables, figures, the page."""
