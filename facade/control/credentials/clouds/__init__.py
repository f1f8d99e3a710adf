"""What the cloud providers are made of: names and endpoints, refusals in words, exchanges."""
