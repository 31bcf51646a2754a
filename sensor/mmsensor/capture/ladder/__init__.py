"""Where in a file the TLS functions are: a ladder of strategies, from the certain to the laborious."""
