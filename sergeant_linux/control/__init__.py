"""Who asks: the control socket and its clients, the names of pools, the service manager; and what is shown to them."""
