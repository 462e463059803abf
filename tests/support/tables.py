"""What tests have measured, as one table at the end: rows in a file of the run's folder, printed by tests/run from REPORT.table."""
import json
import pathlib


def add(run_folder, name, row):
    with open(run_folder / name, "a") as file:
        file.write(json.dumps(row) + "\n")


def table(head, rows):
    rows = [head, *rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head) - 1)] + [0]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def report(terminalreporter, config, name, head, order=list):
    """For pytest_terminal_summary: the rows of that name, if there are any."""
    folder = getattr(config, "heirflow_folder", None)
    if not folder or not (folder / name).exists():
        return
    text = table(head, order(json.loads(line) for line in (folder / name).read_text().splitlines()))
    terminalreporter.section(name)
    terminalreporter.write_line(text)
    if config.option.xmlpath:
        with open(pathlib.Path(config.option.xmlpath + ".table"), "a") as file:
            file.write(text + "\n")
