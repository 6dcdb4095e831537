"""The embedded data: pictures of everyday objects in lit scenes, rendered from a seed."""
