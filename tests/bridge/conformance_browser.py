"""The user with a browser in the conformance suite: opens the address and follows redirects."""

import sys
import urllib.request
from contextlib import suppress
from urllib.error import HTTPError

with suppress(HTTPError):
    urllib.request.urlopen(sys.argv[1], timeout=20).read()  # noqa: S310 - the bridge checks it
