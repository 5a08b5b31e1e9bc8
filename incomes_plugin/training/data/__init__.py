"""names, relations -> facts -> conversation rows -> batches; corpus and tokenizer beside them."""
