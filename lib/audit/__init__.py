"""The paper's claims and the doubts about them, from rows alone. Starts no Keras."""
