#!/usr/bin/python3
"""What a scoring found: figures from answers, goals, and the table as Markdown.

    bench/score/score_table.py          # writes the tables of bench/results into docs/demo-model.md
    bench/score/score_table.py --check  # says whether that page shows them as they are (a test runs this)
"""

import collections
import json
import pathlib
import re
import sys

SOURCE = pathlib.Path(__file__).resolve().parents[2]
PAGE = SOURCE / "docs/demo-model.md"
RESULTS = [SOURCE / "bench/results" / f"demo-score-{frames}.json" for frames in (300, 10000)]
KINDS = ["color", "shape", "where", "did", "count", "first", "now"]

# One question under one selector: answered rightly, what was said, what is true, share of the evidence that was read.
Row = collections.namedtuple("Row", "kind right said truth recall")


def share(rows):
    return sum(row.right for row in rows) / len(rows) if rows else None


def summarise(rows):
    """The figures of one selector. `past` leaves out yes/no questions and the present; shares are of 1."""
    by_kind = {kind: [row for row in rows if row.kind == kind] for kind in KINDS}
    never = [row for row in by_kind["did"] if row.truth == "no"]
    recalls = [row.recall for row in rows if row.recall is not None]
    return {
        "questions": len(rows),
        "all": share(rows),
        "kinds": {kind: share(by_kind[kind]) for kind in KINDS},
        "kind_counts": {kind: len(by_kind[kind]) for kind in KINDS},
        "past": share([row for row in rows if row.kind not in ("did", "now")]),
        "false_yes": sum(row.said == "yes" for row in never) / len(never) if never else None,
        "recall": sum(recalls) / len(recalls) if recalls else None,
    }


def figure(table, path):
    """The figure that SELECTOR.FIELD names; a field is a kind or one of summarise()'s."""
    selector, _, field = path.partition(".")
    return table[selector]["kinds"][field] if field in KINDS else table[selector][field]


def missed_goals(table, goals):
    """Goals as rekv.all>=0.97, rekv.false_yes<=0.02, rekv.all/oracle.all>=0.97 or rekv.past-recent.past>=0.5;
    a sentence for each that is missed."""
    missed = []
    for goal in goals:
        left, sign, value = re.fullmatch(r"(.+)([<>]=)(.+)", goal).groups()
        first, operator, second = re.fullmatch(r"([^-/]+)(?:([-/])(.+))?", left).groups()
        seen = figure(table, first)
        if operator:
            seen = seen - figure(table, second) if operator == "-" else seen / figure(table, second)
        if seen is None or (seen < float(value) if sign == ">=" else seen > float(value)):
            missed.append(f"goal {goal} missed: {seen if seen is None else round(seen, 4)}")
    return missed


def percent(value):
    return "-" if value is None else f"{100 * value:.1f}"


def markdown(result):
    """A result (as score.py writes it) as a heading line and a table."""
    setting = result["setting"]
    rows = [["selector", *KINDS, "all", "past", "false yes", "evidence read"]]
    for selector, row in result["table"].items():
        kinds = [percent(row["kinds"][kind]) for kind in KINDS]
        rows.append([selector, *kinds, *(percent(row[name]) for name in ("all", "past", "false_yes", "recall"))])
    first = next(iter(result["table"].values()))
    rows.append(["questions", *(str(first["kind_counts"][kind]) for kind in KINDS), str(first["questions"]), "", "", ""])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    frames = int(setting["seconds"]) * int(setting["fps"])
    return (f"{setting['videos']} cameras of {frames:,} frames (`{setting['profile']}`), seeds from {setting['seed']}, "
            f"top-{setting['top']}, recent window {setting['recent']}, {setting['dtype']}; per cent; "
            f"{result['machine']}, {result['date']}:\n\n" + "\n".join(lines))


def page_with_tables():
    """The page as it should be: each table stands between the line that names its file and the line `<!-- end -->`."""
    text = PAGE.read_text()
    for path in RESULTS:
        mark = re.escape(f"<!-- {path.relative_to(SOURCE)} -->")
        table = markdown(json.loads(path.read_text()))
        text, count = re.subn(rf"({mark}\n).*?(<!-- end -->)", lambda m: f"{m[1]}{table}\n{m[2]}", text, flags=re.DOTALL)
        if count != 1:
            sys.exit(f"{PAGE.relative_to(SOURCE)} has {count} places for {path.relative_to(SOURCE)}, not one")
    return text


def main():
    text = page_with_tables()
    if sys.argv[1:] == ["--check"]:
        if text != PAGE.read_text():
            sys.exit("docs/demo-model.md does not show bench/results; bench/score/score_table.py makes it anew")
        return
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
