"""Reads what `docmill demo --json` ended with and fails unless every document is done and every question was answered
as its file expects: found where the documents hold the answer, with at least one quoted citation, and not found where
they do not."""

import json
import sys


def main(path: str) -> int:
    with open(path, encoding="utf-8") as file:
        report = json.loads(file.read().strip().splitlines()[-1])
    wrong = [f"{d['name']}: {d['state']}" for d in report["documents"] if d["state"] != "done"]
    for question in report["questions"]:
        if not question["as_expected"]:
            wrong.append(f"not as expected: {question['question']}")
        cited = [c for c in question["citations"] if c["quote"]]
        if question["found"] and not cited:
            wrong.append(f"no citation: {question['question']}")
    if len(report["documents"]) < 14 or len(report["questions"]) < 12:
        wrong.append("fewer documents or questions than sample-docs holds")
    print(f"{len(report['documents'])} documents, {len(report['questions'])} questions, "
          f"{sum(q['found'] for q in report['questions'])} answered, {report['seconds']:.1f} s, {report['counts']}")
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
