"""`python -m modelyard.cli`."""

from .main import main

main()
