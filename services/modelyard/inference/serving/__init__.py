"""Which versions a pod serves to whom: what the registry wants, what is loaded, what leaves memory, traffic."""
