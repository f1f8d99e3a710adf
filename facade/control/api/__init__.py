"""The operator port: an aiohttp application over the control wing's use cases.

`app` builds it from `services.OperatorServices`; `endpoint` is the one way a request becomes a call
of a use case (authentication, permission, validation, audit, errors); `routes/` has one module per
noun; `openapi` describes the very same endpoints.
"""
