"""The end of a child process.

Guarantees: asked first (SIGTERM), killed when it does not obey in time, and waited for; one that ended already, by a
signal of somebody else's perhaps, is no error.
"""

import asyncio
import contextlib


async def end(process: asyncio.subprocess.Process, within: float) -> None:
    """End `process`, by force after `within` seconds, or when the waiting is called off."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(within):
            await process.wait()
    except TimeoutError:
        await _kill(process)
    except asyncio.CancelledError:
        await _kill(process)
        raise


async def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
