"""The six sets' schemas and rows, and the small world's questions in them."""
