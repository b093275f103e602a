"""One-hot digits: how they lie and are turned, and lookups in tables. It must not know whose digits they are."""
