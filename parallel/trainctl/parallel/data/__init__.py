"""From files to batches of token ids: corpus, tokenizer, token cache, data set."""
