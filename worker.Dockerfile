# Worker, beat, migrations, Flower and the simulated carrier: docker build -f worker.Dockerfile -t faxbot-worker .
# The packages are those of constraints.txt, by their hashes; what builds them stays behind.
FROM python:3.11.14-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv --without-pip /opt/faxbot
COPY constraints.txt constraints-build.txt /src/
RUN pip --python /opt/faxbot/bin/python install --require-hashes -r /src/constraints.txt \
    && pip install --require-hashes -r /src/constraints-build.txt
COPY pyproject.toml setup.cfg README.md LICENSE /src/
COPY faxbot /src/faxbot
COPY migrations /src/migrations
RUN pip wheel --no-deps --no-build-isolation --no-index --wheel-dir /wheels /src \
    && pip --python /opt/faxbot/bin/python install --no-deps --no-index /wheels/*.whl \
    && /opt/faxbot/bin/python -m compileall -q /opt/faxbot/lib

FROM python:3.11.14-slim-bookworm
COPY --from=build /opt/faxbot /opt/faxbot
# /data: documents, uploads on their way in, and, outside production, the key file.
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin faxbot \
    && install -d -o faxbot -g faxbot -m 0700 /data
ENV PATH=/opt/faxbot/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    FAX_DATA_DIR=/data
USER 10001:10001
WORKDIR /data
# A fax that is being handed over is handed over before the worker ends.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=60s --timeout=15s --start-period=30s --retries=3 \
    CMD ["sh", "-c", "exec celery --app faxbot.tasks.operations inspect ping --timeout 8 --destination worker@$(hostname)"]
CMD ["faxbot", "worker"]
