"""The pages: list, letter, statistics, history; and what a person does, asked once more before it is done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flask import Flask, abort, flash, g, redirect, render_template, request, session, url_for
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.wrappers import Response

from kombu_kafka.errors import KombuKafkaError
from kombu_kafka.options import Options
from kombu_kafka.wording import counted
from scheduler.dlq import statistics
from scheduler.dlq.filters import SORTS, STATES, Filter, FilterError, parse_time, sort
from scheduler.dlq.index import Entry, Index
from scheduler.dlq.letters import LetterId, LetterIdError
from scheduler.dlq.outgoing import moment
from scheduler.dlq.reader import Reader
from scheduler.dlq.replay import Order, replay, skip
from scheduler.dlq.texts import age, body, plain, redact_text
from scheduler.dlq.web.gate import Passwords, Throttle, csrf_token, guard

__all__ = ["make_app"]

#: Letters on a page.
PAGE = 50
#: Letters that one click may act on; more are for the command line, with its progress and its rate.
MAX_ACT = 1000
#: Refusals that are told one by one.
TOLD = 10

_TEXTS = ("task", "exception", "reason", "kind", "topic", "key", "task_id")
_FIELDS = (*_TEXTS, "partition", "since", "until", "state")


class _Letters:
    """The index that all requests share, refreshed by each; made anew when the brokers were lost."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._lock = threading.Lock()
        self._reader: Reader | None = None
        self._index: Index | None = None

    @contextmanager
    def fresh(self) -> Iterator[Index]:
        """Lend the index, up to date."""
        with self._lock:
            try:
                if self._reader is None or self._index is None:
                    self._reader = Reader(self.options)
                    self._index = Index(self.options, self._reader)
                self._index.refresh()
                yield self._index
            except KombuKafkaError:
                if self._reader is not None:
                    self._reader.close()
                self._reader = self._index = None
                raise


def make_app(
    options: Options, passwords: Passwords, *, allow_changes: bool = False, behind_proxy: bool = False
) -> Flask:  # fmt: skip
    """Return the page as a WSGI app.

    Args:
        options: Brokers and the dead letter topic.
        passwords: Who may come in.
        allow_changes: Offer replay and skip; without it the page only shows.
        behind_proxy: A proxy with TLS is in front: its word on address and scheme counts.
    """
    app = Flask(__name__)
    guard(app, secure=behind_proxy)
    if behind_proxy:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1)  # type: ignore[method-assign]
    letters = _Letters(options)
    app.jinja_env.filters.update(
        plain=_plain, age=_age, counted=counted, moment=moment, covered=_covered
    )
    app.jinja_env.globals.update(
        csrf_token=csrf_token, allow_changes=allow_changes, topic=options.dead_letter_topic,
        states=STATES, max_act=MAX_ACT,
    )  # fmt: skip
    _login_pages(app, passwords)
    _look_pages(app, letters)
    _act_pages(app, letters, allow_changes=allow_changes)
    _error_pages(app)
    return app


def _login_pages(app: Flask, passwords: Passwords) -> None:
    throttle = Throttle()

    @app.route("/login", methods=["GET", "POST"])
    def login() -> Any:
        if request.method == "GET":
            return render_template("login.html")
        address = request.remote_addr or ""
        if not throttle.allows(address):
            return render_template("login.html", fault="Too many tries: wait a minute."), 429
        name = request.form.get("name", "")[:200]
        if not passwords.check(name, request.form.get("password", "")[:1000]):
            throttle.failed(address)
            return render_template("login.html", fault="Name or password is wrong."), 403
        session.clear()
        session.update(person=name, since=time.time())
        return redirect(url_for("index"), 303)

    @app.post("/logout")
    def logout() -> Response:
        session.clear()
        return redirect(url_for("login"), 303)

    @app.get("/favicon.ico")
    def favicon() -> tuple[str, int]:
        return "", 204


def _look_pages(app: Flask, letters: _Letters) -> None:
    @app.get("/")
    def index() -> str:
        choice = _choice(request.args)
        by = request.args.get("sort", "failed")
        page = max(1, request.args.get("page", 1, int))
        with letters.fresh() as known:
            every = known.entries()
        found = sort(choice.choose(every), by if by in SORTS else "failed", reverse=True)
        shown = found[(page - 1) * PAGE : page * PAGE]
        asked = {name: request.args[name] for name in _FIELDS if request.args.get(name)}
        counts = {state: sum(entry.state == state for entry in every) for state in STATES}
        return render_template(
            "list.html", entries=shown, found=len(found), page=page, counts=counts,
            pages=max(1, -(-len(found) // PAGE)), asked=asked, sorts=SORTS, by=by, now=time.time(),
        )  # fmt: skip

    @app.get("/letters/<name>")
    def letter(name: str) -> str:
        wanted = LetterId.parse(name)
        reveal = request.args.get("reveal") == "1"
        with letters.fresh() as known:
            entry, whole = known.find(wanted), known.whole(wanted)
        if entry is None or whole is None:
            abort(404, f"There is no letter {wanted} (any more).")
        text, note = body(whole, reveal=reveal)
        cover: Callable[[str], str] = str if reveal else redact_text
        headers = [
            (header, cover((raw or b"")[:2000].decode(errors="replace")))
            for header, raw in whole.headers
        ]
        return render_template(
            "letter.html", entry=entry, letter=whole, body=text, note=note, headers=headers,
            message=cover(whole.message), traceback=cover(whole.about.get("traceback", "")),
            reveal=reveal, now=time.time(),
        )  # fmt: skip

    @app.get("/stats")
    def stats() -> str:
        with letters.fresh() as known:
            entries = known.entries()
        now = time.time()
        hours = statistics.rates(entries, now)
        return render_template(
            "stats.html", groups=statistics.groups(entries), hours=hours, top=max(hours), now=now
        )

    @app.get("/history")
    def history() -> str:
        with letters.fresh() as known:
            acts = known.history.all()[: -MAX_ACT - 1 : -1]
        return render_template("history.html", acts=acts)


def _act_pages(app: Flask, letters: _Letters, *, allow_changes: bool) -> None:
    def chosen() -> list[Entry]:
        """The letters meant: those ticked, or all that the filters on the page mean."""
        if not allow_changes:
            abort(403, "This page only shows: it was started without --allow-changes.")
        if request.form.get("which") == "all":
            choice = _choice(request.form)
        else:
            ids = frozenset(map(LetterId.parse, request.form.getlist("id")))
            choice = Filter(ids=ids)
        # What comes after the page was made was not meant by whoever looked at it.
        as_of = request.form.get("as_of", time.time(), float)
        with letters.fresh() as known:
            found = choice.choose(known.entries())
        found = [entry for entry in found if entry.letter.written_at <= as_of]
        if len(found) > MAX_ACT:
            abort(400, f"{counted(len(found), 'letter')} are meant, {MAX_ACT:,} at most can be dealt with here:"
                       " narrow the filter, or use 'scheduler dlq replay'.")  # fmt: skip
        return found

    @app.post("/confirm")
    def confirm() -> Any:
        entries = chosen()
        if not entries:
            flash("No letter was chosen.")
            return redirect(url_for("index"), 303)
        act = request.form.get("act", "")
        if act not in ("replay", "skip"):
            abort(400, "Neither replay nor skip was asked for.")
        return render_template("confirm.html", entries=entries, act=act, now=time.time())

    @app.post("/act")
    def act() -> Any:
        entries = chosen()
        why = plain(request.form.get("why", "").strip()[:500])
        order = Order(by=f"{g.person} (web)", why=why, force=request.form.get("force") == "1")
        with Reader(letters.options) as reader:
            index = Index(letters.options, reader)
            if request.form.get("act") == "replay":
                ids = [entry.letter.id for entry in entries]
                outcome, done = (
                    replay(letters.options, reader, index, sorted(ids), order),
                    "replayed",
                )
            elif not why:
                abort(400, "Say why these letters need no replay: go back and give a reason.")
            else:
                outcome, done = skip(letters.options, reader, index, entries, order), "skipped"
        flash(f"{len(outcome.done):,} {done}.")
        for letter, refusal in outcome.refused[:TOLD]:
            flash(f"{letter} is refused: {refusal}.")
        if len(outcome.refused) > TOLD:
            flash(f"… and {len(outcome.refused) - TOLD:,} more are refused.")
        return redirect(url_for("index"), 303)


def _error_pages(app: Flask) -> None:
    @app.errorhandler(HTTPException)
    def http(exc: HTTPException) -> tuple[str, int]:
        return render_template("error.html", fault=exc.description), exc.code or 500

    @app.errorhandler(KombuKafkaError)
    def kafka(exc: KombuKafkaError) -> tuple[str, int]:
        return render_template("error.html", fault=str(exc)), 503

    @app.errorhandler(FilterError)
    @app.errorhandler(LetterIdError)
    def wrong(exc: Exception) -> tuple[str, int]:
        return render_template("error.html", fault=str(exc)), 400


def _choice(given: Any) -> Filter:
    """Read the filter that a form or an address holds; nothing said of the state means new."""
    texts = {name: given.get(name, "").strip()[:300] or None for name in _TEXTS}
    partition = given.get("partition", "").strip()
    if partition and not (partition.isascii() and partition.isdecimal() and len(partition) < 10):
        raise FilterError(f"{partition[:20]!r} is no number of a partition.")
    since, until = (given.get(name, "").strip()[:40] for name in ("since", "until"))
    state = given.get("state", "") or "new"
    return Filter(
        partition=int(partition) if partition else None,
        since=parse_time(since) if since else None,
        until=parse_time(until) if until else None,
        state=state if state in STATES else None,
        **texts,
    )


def _plain(text: object) -> str:
    return plain(str(text), lines=True)


def _covered(text: str) -> str:
    return plain(redact_text(text))


def _age(seconds: float) -> str:
    return age(seconds)
