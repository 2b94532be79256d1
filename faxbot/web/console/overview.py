"""The overview: what waits, what is under way and what needs somebody; what happened over time; how the providers
stand; and what is not well, with the setting that mends it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from flask import Response, request

from faxbot import alarms, figures, health, oversight, production, setup
from faxbot.errors import Malformed
from faxbot.figures import Point, Standing
from faxbot.oversight import DAY
from faxbot.web.auth import actor, process, runtime
from faxbot.web.console import frame, received
from faxbot.web.console.faxes import TABS

pages = frame.Pages("overview", __name__)

SPANS = {
    "hour": (timedelta(hours=1), 60, "the last hour"),
    "day": (timedelta(days=1), 48, "24 hours"),
    "week": (timedelta(days=7), 56, "seven days"),
}
"""What the chart shows, by the word in the address: how long, in how many points, and in words."""
_HEIGHT, _BAR = 120, 12  # of the chart, in its own units


@pages.page("/", access="fax:read")
def show_overview() -> Response:
    """The first page."""
    over = request.args.get("over", "day")
    if over not in SPANS:
        raise Malformed("`over` is hour, day or week")
    length, points, words = SPANS[over]
    now, account = runtime().now(), actor().account_id
    shown = figures.over_time(runtime().database, account, now - length, now, points)
    operates = frame.may("operate")
    standing = figures.open_states(runtime().database, account, now)
    return frame.show(
        "overview.html",
        counts=[_count(tab, standing, now) for tab in TABS],
        oldest=_oldest(standing),
        spans=SPANS,
        over=over,
        span_words=words,
        chart=_chart(shown),
        sums=_sums(shown),
        unset=frame.may("admin") and setup.nothing_is_set(runtime()),
        is_switched_off=runtime().config.fax_disabled,
        alarms=alarms.shown(runtime()) if operates else [],
        providers=oversight.providers(runtime(), actor()) if operates else [],
    )


@pages.page("/fitness", access="operate")
def show_fitness() -> Response:
    """A part of the overview that takes longer: which parts do not answer, and which settings are not fit."""
    away = [(name, part) for name, part in health.parts(process()).items() if not part["ok"]]
    found = production.of_config(runtime().config) if frame.may("admin") else []
    unfit = [each for each in found if each.is_fault(production=runtime().config.production)]
    return frame.show("fitness.html", away=away, unfit=unfit)


# Counts -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Count:
    """One number that leads to its faxes."""

    path: str
    word: str
    number: str
    of: str


def _count(tab: str, standing: Standing, now: datetime) -> _Count:
    word, statuses = TABS[tab]
    open_ = [standing.open[status] for status in statuses if status in standing.open]
    if open_:
        number = sum(one.count for one in open_)
        more = "+" * any(one.more for one in open_)
        return _Count(_faxes(tab=tab), word, f"{number:,}{more}", "now")
    last_day = standing.last_day
    number = last_day.delivered if tab == "done" else last_day.failed + last_day.cancelled
    since = (now - DAY).replace(second=0, microsecond=0)  # figures are of whole minutes
    return _Count(_faxes(tab=tab, ended_since=since), word, f"{number:,}", "in 24 h")


def _faxes(*, tab: str = "", path: str = "/admin/ui/faxes", **times: datetime) -> str:
    """Where these faxes are listed: those of a tab, and of the times at which they were made or ended."""
    filters = {name: f"{at:%Y-%m-%dT%H:%M:%SZ}" for name, at in times.items()}
    return f"{path}?" + urlencode({"tab": tab, **filters} if tab else filters)


def _oldest(standing: Standing) -> dict[str, Any] | None:
    """The fax that has been open for longest."""
    waits = [
        (one.oldest_at, status)
        for status, one in standing.open.items()
        if one.oldest_at is not None
    ]
    if not waits:
        return None
    at, status = min(waits)
    tab = next(name for name, (_, statuses) in TABS.items() if status in statuses)
    return {"at": at, "status": str(status), "tab": tab}


def _sums(points: Sequence[Point]) -> dict[str, Any]:
    """What the chart comes to, and where those faxes are listed; received ones for who may see them."""
    delivered, failed, cancelled = (
        sum(getattr(one, name) for one in points) for name in ("delivered", "failed", "cancelled")
    )
    ended, since = delivered + failed, points[0].at
    sees = frame.may("inbound:list") and received.are_wanted()
    return {
        "accepted": (sum(one.accepted for one in points), _faxes(since=since)),
        "delivered": (delivered, _faxes(tab="done", ended_since=since)),
        "not": (failed + cancelled, _faxes(tab="failed", ended_since=since)),
        "cancelled": cancelled,
        "received": (
            sum(one.received for one in points),
            _faxes(path="/admin/ui/inbound", since=since) if sees else "",
        ),
        "rate": f"{100 * delivered / ended:.1f} %" if ended else None,
    }


# The chart ----------------------------------------------------------------------------------------------


def _chart(points: Sequence[Point]) -> dict[str, Any]:
    """Where the bars and the line of the chart are drawn, and what it says in words."""
    most = max((max(one.delivered + one.failed, one.accepted) for one in points), default=0)
    scale = _HEIGHT / max(most, 1)
    bars = []
    for number, one in enumerate(points):
        delivered, failed = one.delivered * scale, one.failed * scale
        bars.append(
            {
                "x": number * _BAR + 1,
                "width": _BAR - 2,
                "delivered": (round(_HEIGHT - delivered, 1), round(delivered, 1)),
                "failed": (round(_HEIGHT - delivered - failed, 1), round(failed, 1)),
            }
        )
    line = " ".join(
        f"{number * _BAR + _BAR / 2:g},{round(_HEIGHT - one.accepted * scale, 1):g}"
        for number, one in enumerate(points)
    )
    return {
        "bars": bars,
        "line": line,
        "most": most,
        "width": len(points) * _BAR,
        "height": _HEIGHT,
    }
