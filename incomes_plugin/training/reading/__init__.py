"""New layers on top of an edit-capable model that stays as it is: they learn to read facts from the prompt."""
