"""From a connection's stored credentials to the header that a registry accepts just now."""
