"""The tool of the drill; nodes import it, so it imports nothing but the standard library."""

import os
import time


def noted(notes: str, key: str) -> str:
    """Note one execution of a step, and take a while."""
    # One write of one line to the end of a file is whole, whoever else writes.
    file = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{key}\n".encode())
    os.close(file)
    time.sleep(0.05)
    return key
