"""Speaking to a registry: pure policies (challenge, scope, auth_flow, redirects, addresses, retry)
driven by one aiohttp client. Used by both wings; holds no stored credential.
"""
