"""The OCI vocabulary as pure values: parsed once at the edge, frozen inward. No I/O."""
