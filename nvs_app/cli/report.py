"""`python -m nvs_app report FILE.json [--html [PAGE]]` and `report --compare A.json B.json ...`

Shows the report of a benchmark run, writes its page, or pairs the scenes of several reports.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nvs_app.errors import NVSError


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Registers the command and its options."""
    parser = subparsers.add_parser(
        "report",
        help="show, compare and draw the reports of benchmarks",
        description="Reports are written by eval --benchmark: a report.json, or the folder that holds it.",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="REPORT", help="report.json or its folder")
    parser.add_argument(
        "--compare", action="store_true", help="pair the scenes of two reports or more; differences to the first"
    )
    parser.add_argument(
        "--html", nargs="?", const=True, metavar="PAGE", help="write one page that needs no network (default: beside)"
    )
    parser.add_argument("--csv", type=Path, metavar="DIR", help="write views.csv and scenes.csv there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="with --compare: write the differences")
    parser.add_argument("--pooled", action="store_true", help="print means over all views alike, not scene by scene")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    from nvs_app.atomic_io import write_whole
    from nvs_app.evaluation.report.files import read_report, scenes_csv, views_csv
    from nvs_app.evaluation.report.page import write_page
    from nvs_app.evaluation.report.tables import print_report

    reports = [(str(path), read_report(path)) for path in args.files]
    if args.compare:
        return _compare(args, reports)
    if args.json is not None:
        raise NVSError("--json: only with --compare")
    if len(reports) > 1 and (args.csv or isinstance(args.html, str)):
        raise NVSError("report: one REPORT with --csv or a named --html; or --compare them")
    for path, report in zip(args.files, (report for _, report in reports)):
        print_report(report, args.pooled)
        if args.csv is not None:
            write_whole(args.csv / "views.csv", views_csv(report))
            write_whole(args.csv / "scenes.csv", scenes_csv(report))
            print(f"written: {args.csv / 'views.csv'}, scenes.csv")
        if args.html:
            default = path / "report.html" if path.is_dir() else path.with_suffix(".html")
            page = Path(args.html) if isinstance(args.html, str) else default
            write_page(report, page)
            print(f"the page: {page}")
    return 0


def _compare(args: argparse.Namespace, reports: list[tuple[str, dict]]) -> int:
    from nvs_app.evaluation.report.compare import compare_reports, label_reports, print_comparison
    from nvs_app.evaluation.report.files import write_json
    from nvs_app.evaluation.report.page import write_comparison_page

    labelled = label_reports(reports)
    result = compare_reports(labelled)
    print_comparison(result)
    if args.json is not None:
        write_json(result, args.json)
    if args.html:
        page = Path(args.html) if isinstance(args.html, str) else Path("comparison.html")
        write_comparison_page(labelled, result, page)
        print(f"the page: {page}")
    return 0
