"""What the paper shows, from rows alone: figures, Table I, schemes. Starts no Keras."""
