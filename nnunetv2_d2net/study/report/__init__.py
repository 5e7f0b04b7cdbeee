"""A benchmark as one HTML page that opens with no network, and as Markdown."""
