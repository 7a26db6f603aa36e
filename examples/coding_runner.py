"""Runs the unit tests of the current folder; prints JSON: what failed, and which code it called.

A program of its own, since code under test may do anything: loop, exit, print.
"""

import json
import sys
import unittest
from pathlib import Path
from types import FrameType
from typing import Any

_HERE = str(Path.cwd())


class _Traced(unittest.TestResult):
    """Notes the functions that each failing test called (fault localisation by coverage)."""

    def __init__(self) -> None:
        super().__init__()
        self.failed: list[str] = []
        self.suspects: list[str] = []
        self._called: list[str] = []

    def startTest(self, test: unittest.TestCase) -> None:  # noqa: N802 - unittest's name
        super().startTest(test)
        self._called = []
        sys.setprofile(self._note)

    def stopTest(self, test: unittest.TestCase) -> None:  # noqa: N802 - unittest's name
        sys.setprofile(None)
        super().stopTest(test)

    def _note(self, frame: FrameType, event: str, _: Any) -> None:  # noqa: ANN401 - Python's hook
        code = frame.f_code
        in_project = code.co_filename.startswith(_HERE) and "test_" not in code.co_filename
        if event == "call" and in_project and not code.co_name.startswith("<"):
            self._called.append(code.co_name)

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802, ANN401 - unittest's
        sys.setprofile(None)
        super().addFailure(test, err)
        self._blame(test, err[1])

    def addError(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802, ANN401 - unittest's
        sys.setprofile(None)
        super().addError(test, err)
        self._blame(test, err[1])

    def _blame(self, test: unittest.TestCase, error: BaseException) -> None:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        self.failed.append(f"{test.id().rsplit('.', 1)[-1]}: {line[:120]}")
        self.suspects += [name for name in self._called if name not in self.suspects]


def main() -> None:
    """Run the tests and report."""
    sys.path.insert(0, _HERE)
    result = _Traced()
    unittest.defaultTestLoader.discover(_HERE).run(result)
    told = {"failed": result.failed, "suspects": result.suspects, "count": result.testsRun}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
