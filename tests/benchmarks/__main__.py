"""`make bench`, or `make bench Q=overhead`: one question per module, each measured as ratios inside one run."""

import importlib
import sys
from pathlib import Path

from tests.benchmarks.measure import report

NOT_QUESTIONS = {"__init__", "__main__", "canned_s3", "measure", "sync_costs"}


def main() -> int:
    known = sorted(file.stem for file in Path(__file__).parent.glob("*.py") if file.stem not in NOT_QUESTIONS)
    asked = sys.argv[1:] or known
    unknown = [one for one in asked if one not in known]
    if unknown:
        print(f"No such question: {', '.join(unknown)}. There are: {', '.join(known)}.", file=sys.stderr)
        return 2
    met = [report(one, importlib.import_module(f"tests.benchmarks.{one}").measure) for one in asked]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
