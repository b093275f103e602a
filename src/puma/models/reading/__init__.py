"""How clients put texts to a model besides its tokenizer: in which words, cut to which length, and what tokens stand for."""
