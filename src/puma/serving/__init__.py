"""Who talks with whom: the owner shares a model, the client asks, three parties answer."""
