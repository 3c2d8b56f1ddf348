"""What an instance was made from: what it states, and the graph of what is found of that."""
