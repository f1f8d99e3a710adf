"""Connected registries: what is stored of them, sealed, and how the rest of Facade sees them."""
