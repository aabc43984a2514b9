"""What ``pagoda prefer serve`` and ``report`` do: ask, and say what the votes say."""

from __future__ import annotations

import sys
from pathlib import Path

from pagoda import outputs
from pagoda.config.revision import package_revision
from pagoda.errors import PagodaError
from pagoda.pipeline.stages import prefer_server as server
from pagoda.pipeline.stages.address import is_loopback, listen, url
from pagoda.pipeline.stages.progress import log_line
from pagoda.preference.study import PICTURES, VOTES, check_pictures, read_study
from pagoda.preference.votes import Store, read_votes


def serve(folder: Path, host: str, port: int) -> None:
    """Ask whoever opens the page, until Ctrl-C.

    Raises:
        PagodaError: one line, before anything is served: no study, damaged votes, port in use.
    """
    study = read_study(folder)
    check_pictures(study, folder)
    store = Store(folder / VOTES, study)
    try:
        with listen(host, port) as door:
            if not is_loopback(door):
                log_line("whoever reaches this machine can vote; there is no password")
            log_line(f"{url(door, host)} asks about {study.pairs} pairs; Ctrl-C ends it")
            server.serve(study, store, folder / PICTURES, door, host)
    except KeyboardInterrupt:
        log_line(f"ended; {store.record.count} votes in {folder / VOTES}")
    finally:
        store.close()


def report(folder: Path, out: Path | None, most_failed: float) -> None:
    """Write the report of a study's votes, by default into its folder.

    Raises:
        PagodaError: one line: no study, no votes, damaged votes, evalica is not installed.
    """
    from pagoda.preference.analysis import check_evalica
    from pagoda.preference.report import OURS, analyse, told, write_report

    check_evalica()
    place = folder / "report" if out is None else out
    study = read_study(folder)
    outputs.check_folder(place, OURS)
    record = read_votes(folder / VOTES, study)
    if not record.count:
        raise PagodaError(
            f"{folder} has no votes yet; 'pagoda prefer serve {folder}' asks for them"
        )
    found = analyse(study, record, package_revision(), most_failed)
    write_report(found, place)
    sys.stdout.write(told(found))
    log_line(f"report: {place}/index.html (page), {place}/report.md (text)")
