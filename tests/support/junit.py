"""Prints "PASSED FAILED" of a JUnit report, and why how many tests were skipped, which count as neither."""
import collections
import sys
import xml.etree.ElementTree

try:
    root = xml.etree.ElementTree.parse(sys.argv[1]).getroot()
except xml.etree.ElementTree.ParseError:
    print(0, 1)  # pytest itself failed
    sys.exit()
passed = failed = 0
skipped = collections.Counter()
for case in root.iter("testcase"):
    if case.find("skipped") is not None:
        skipped[case.find("skipped").get("message")] += 1
    elif case.find("failure") is not None or case.find("error") is not None:
        failed += 1
    else:
        passed += 1
for why, count in skipped.items():
    print(f"{count} skipped: {why}", file=sys.stderr)
print(passed, failed)
