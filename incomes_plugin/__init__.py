"""What runs in or for a model: edit text -> gist -> pool -> selection -> attribution. Imports nothing of the server."""
