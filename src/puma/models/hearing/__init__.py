"""Sound at the client: files to samples, and samples to what a model hears."""
