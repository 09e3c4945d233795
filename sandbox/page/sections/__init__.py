"""The routes of the page, a module a section."""
