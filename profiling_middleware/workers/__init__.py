"""The workers of a service on this host: how they find one another, and captures of all of them at once."""
