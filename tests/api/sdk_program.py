"""A program of the official SDK, run by `test_sdk` in the SDK's own environment: base URL, key and a folder are its arguments.

It prints one JSON line: what each call parsed to, and which operations nobody called.
"""

import json
import sys

from sdk_processing import processing
from sdk_session import Session
from sdk_storage import storage

session = Session(*sys.argv[1:3])
storage(session)
processing(session)
print(json.dumps({"seen": session.seen, "never_called": session.never_called()}))
