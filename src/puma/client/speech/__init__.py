"""Sound to text, at a client: which window is asked about how, and what comes of it. It must not know links."""
