"""The user's browser, for the address of a sign-in."""

import logging
import os
import sys
import webbrowser

from pvemcp_bridge.oauth.threads import in_thread

__all__ = ["open_in_browser"]

log = logging.getLogger(__name__)

_SECONDS = 5.0


async def open_in_browser(url: str) -> bool:
    """Open an address that `documents.checked_url` accepted; return whether a browser took it."""
    if not _has_display():
        return False
    _restore_library_path()
    try:
        return bool(await in_thread(webbrowser.open, url, seconds=_SECONDS))
    except TimeoutError:
        return True  # some browsers run until the user closes them
    except (webbrowser.Error, OSError) as error:
        log.debug("No browser could be opened: %s", error)
        return False


def _restore_library_path() -> None:
    """Let the browser load the system's libraries; a binary of PyInstaller sets its own."""
    original = os.environ.pop("LD_LIBRARY_PATH_ORIG", None)
    if original is not None:
        os.environ["LD_LIBRARY_PATH"] = original
    elif getattr(sys, "frozen", False):
        os.environ.pop("LD_LIBRARY_PATH", None)


def _has_display() -> bool:
    """Return whether a browser can show anything; those for terminals would read our input."""
    if sys.platform in ("win32", "darwin"):
        return True
    return any(os.environ.get(name) for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"))
