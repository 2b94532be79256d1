"""python -m tests.drill --faxes N --seed S: exit code 0 when no fax of the backup is lost or sent twice."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack

import click

from tests.carrier import SimulatorProcess
from tests.drill.run import Result, drill
from tests.ground import Ground
from tests.installation import Stores
from tests.servers import PostgresServer, RedisServer


def run(store: str, faxes: int, seed: int) -> Result:
    """One drill of a fresh installation."""
    ground = Ground()
    stores, stack = Stores(ground), ExitStack()
    say = lambda text: click.echo(text, err=True)  # noqa: E731
    try:
        with SimulatorProcess(ground.new_folder("carrier")) as carrier:
            if store == "embedded":
                return drill(stores.embedded(), carrier, None, faxes=faxes, seed=seed, say=say)
            redis, postgres = RedisServer(ground), PostgresServer(ground)
            for server in (redis, postgres):
                server.start()
                stack.callback(server.stop)
            with stores.postgresql(postgres, redis) as installation:
                return drill(installation, carrier, postgres, faxes=faxes, seed=seed, say=say)
    finally:
        stack.close()
        ground.close()


@click.command()
@click.option("--faxes", default=200, show_default=True, type=click.IntRange(6, 100_000))
@click.option("--seed", type=int, help="Of all that is left to chance.  [default: the time]")
@click.option(
    "--store",
    type=click.Choice(["postgresql", "embedded"]),
    default="postgresql",
    show_default=True,
)
def main(faxes: int, seed: int | None, store: str) -> None:
    """Lose an installation under load, bring its backup back, and count every fax against the carrier's ledger."""
    seed = int(time.time()) if seed is None else seed
    result = run(store, faxes, seed)
    click.echo(f"store {store} seed {seed}: {result.line}")
    sys.exit(1 if result.lost or result.twice else 0)


if __name__ == "__main__":
    main()
