"""How clients put texts to a model besides its tokenizer: in which words, cut to what length, what tokens stand for."""
