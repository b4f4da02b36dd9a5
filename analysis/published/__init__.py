"""Published results: reading their logs, checking them, and the table that ships."""
