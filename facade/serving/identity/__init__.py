"""Who is connected: TLS, the certificate, and what was revoked."""
