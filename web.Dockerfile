# The HTTP API: docker build -f web.Dockerfile -t faxbot-web .
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
    FAX_DATA_DIR=/data \
    FAXBOT_HOST=0.0.0.0 \
    FAXBOT_PORT=8080
USER 10001:10001
WORKDIR /data
EXPOSE 8080
# Requests under way are finished after this signal.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/health', timeout=4)"]
CMD ["faxbot", "web"]
