"""The floor's web process: Flask under gunicorn, answering the same paths in the same shapes as faxbot."""

from __future__ import annotations

import hashlib
import hmac
import os
import uuid
from datetime import UTC, datetime
from pathlib import Path

import redis
from flask import Flask, Response, abort, jsonify, request
from werkzeug.datastructures import FileStorage

from benchmarks.floor.carrier import signature
from benchmarks.floor.settings import Settings
from benchmarks.floor.store import JOB, Row, Taken, open_store
from benchmarks.floor.worker import SEND, celery_app

QUEUE = "floor"


class Api:
    """The views of one floor and what they work with."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = open_store(settings.database)
        self.files = Path(settings.files)
        self.broker = redis.Redis.from_url(settings.redis)
        self.celery = celery_app(settings)

    def account(self) -> str:
        """Whose key came with this request."""
        found = self.store.account(key_hash(self.settings, request.headers.get("X-API-Key", "")))
        if found is None:
            abort(401)
        return found

    def submit(self) -> tuple[Response, int]:
        """POST /fax/send"""
        account = self.account()
        job_id = uuid.uuid4().hex
        document = keep(request.files["file"], self.files, job_id)
        key = request.headers["Idempotency-Key"]
        try:
            self.store.submit(account, key, job_id, document, request.form["to"])
        except Taken as taken:
            Path(document[0]).unlink()
            job_id = taken.job_id
        self.publish(job_id)
        return jsonify(id=job_id, status="queued", to=request.form["to"]), 202

    def publish(self, job_id: str) -> None:
        """Tell the worker."""
        if self.settings.publish == "celery":
            self.celery.send_task(SEND, (job_id,))
        else:
            self.broker.lpush(QUEUE, job_id)

    def read(self, job_id: str) -> Response:
        """GET /fax/{id}"""
        row = self.store.job(self.account(), job_id)
        if row is None:
            abort(404)
        return jsonify(dict(zip(JOB, row, strict=True)))

    def events(self, job_id: str) -> Response:
        """GET /fax/{id}/events"""
        self.account()
        tag, rows = self.store.events(job_id)
        if not rows:
            abort(404)
        events = [
            {"sequence": sequence, "type": kind, "recorded_at": iso(at)}
            for sequence, kind, at in rows
        ]
        return jsonify(events=events, attempts=[{"tag": tag}] if tag else [])

    def callback(self) -> tuple[str, int]:
        """POST /callbacks"""
        body = request.get_data()
        moment, _, proof = request.headers.get("X-Simulator-Signature", "").partition(",v1=")
        wanted = signature(self.settings.carrier_secret, moment.removeprefix("t="), body)
        if not hmac.compare_digest(wanted, proof):
            abort(401)
        self.store.final(str(request.get_json()["fax"]["tag"]))
        return "", 204


def key_hash(settings: Settings, key: str) -> str:
    """What stands in the database for an API key."""
    return hmac.digest(settings.hash_key.encode(), key.encode(), "sha256").hex()


def keep(file: FileStorage, folder: Path, job_id: str) -> Row:
    """Write the upload durably: (path, sha256, size)."""
    data = file.stream.read()
    path = folder / job_id
    with path.open("xb", buffering=0) as target:
        target.write(data)
        os.fsync(target.fileno())
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return str(path), hashlib.sha256(data).hexdigest(), len(data)


def iso(seconds: float) -> str:
    """Seconds of the epoch as the API shows them."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def create_app(path: str) -> Flask:
    """The floor that the settings file at `path` describes."""
    api = Api(Settings.load(path))
    app = Flask(__name__)
    app.add_url_rule("/fax/send", view_func=api.submit, methods=["POST"])
    app.add_url_rule("/fax/<job_id>", view_func=api.read)
    app.add_url_rule("/fax/<job_id>/events", view_func=api.events)
    app.add_url_rule("/callbacks", view_func=api.callback, methods=["POST"])
    return app
