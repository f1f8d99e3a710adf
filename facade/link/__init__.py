"""The second adapter of both ports in `wings.py`: over Unix sockets, between `facade up` and its workers.

`control_server` and `control_client` carry `ControlPort` (a worker asks its parent), `cache_server` and
`cache_client` carry `CachePort` the other way, `workers_port` makes one `CachePort` of many. The
codecs are pure. Only `facade.app` imports this room: the wings know the ports alone.
"""
