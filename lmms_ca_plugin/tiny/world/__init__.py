"""The small world: scenes, the pictures of them, and the questions of six sets about them."""
