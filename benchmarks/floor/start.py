"""Brings a floor up: web alone, or with worker and carrier."""

from __future__ import annotations

import dataclasses

from benchmarks.carrier import HttpLedger
from benchmarks.client import Address
from benchmarks.floor.api import key_hash
from benchmarks.floor.settings import Settings
from benchmarks.floor.store import create
from benchmarks.launch import Child, Workshop, free_port, listens, until
from benchmarks.service import Service
from benchmarks.sides import Side


def start_web(workshop: Workshop, name: str, database: str, redis: str) -> Side:
    """The floor of a submit: gunicorn with two workers of four threads, one LPUSH, nobody at the other end."""
    settings = make_settings(workshop, name, database, redis)
    web = _web(workshop, name, settings)
    return Side(name, _service(settings), {"web": [web.pid]})


def start_whole(workshop: Workshop, name: str, database: str, redis: str) -> Side:
    """The floor of the whole path: web publishing with Celery, a worker of two processes, a carrier."""
    settings = make_settings(workshop, name, database, redis)
    carrier, url = start_carrier(workshop, name, settings.carrier_secret)
    settings = dataclasses.replace(settings, publish="celery", carrier_url=url)
    web = _web(workshop, name, settings)
    worker = start_worker(workshop, name, settings)
    roles = {"web": [web.pid], "worker": [worker.pid], "carrier": [carrier.pid]}
    return Side(name, _service(settings), roles, HttpLedger(settings.carrier_url))


def start_carrier(workshop: Workshop, name: str, secret: str) -> tuple[Child, str]:
    """A carrier of its own for one side, and its address."""
    port = free_port()
    carrier = workshop.python(f"{name}-carrier", "benchmarks.floor.carrier", str(port), secret)
    until(lambda: listens(port), carrier)
    return carrier, f"http://127.0.0.1:{port}"


def start_worker(workshop: Workshop, name: str, settings: Settings) -> Child:
    """A worker of two sending processes; its first task waits for it."""
    path = settings.save(workshop.folder / f"{name}-worker.json")
    return workshop.python(f"{name}-worker", "benchmarks.floor.worker", str(path))


def make_settings(workshop: Workshop, name: str, database: str, redis: str) -> Settings:
    """A floor with tables, a key and a folder, of which nothing runs yet."""
    files = workshop.folder / f"{name}-files"
    files.mkdir()
    settings = Settings(
        database=database, redis=redis, files=str(files),
        api_url=f"http://127.0.0.1:{free_port()}",
    )  # fmt: skip
    create(database, [key_hash(settings, settings.api_key)])
    return settings


def _web(workshop: Workshop, name: str, settings: Settings) -> Child:
    path = settings.save(workshop.folder / f"{name}.json")
    address = Address.of(settings.api_url)
    web = workshop.python(
        f"{name}-web", "gunicorn",
        "--bind", str(address), "--workers", str(settings.processes),
        "--worker-class", "gthread", "--threads", str(settings.threads), "--no-control-socket",
        f"benchmarks.floor.api:create_app('{path}')",
    )  # fmt: skip
    until(lambda: listens(address.port), web)
    return web


def _service(settings: Settings) -> Service:
    return Service(Address.of(settings.api_url), settings.api_key)
