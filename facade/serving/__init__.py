"""The device wing: who may have what, and its bytes. Holds no long-lived secret."""
