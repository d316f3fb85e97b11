# One image for web, worker, training and the all-in-one default. Nothing runs as root.
FROM python:3.12-slim-bookworm AS packages
COPY requirements.txt /build/requirements.txt
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check -r /build/requirements.txt

FROM python:3.12-slim-bookworm
# libgomp1: the OpenMP that LightGBM is linked against. tini: reaps what a killed part leaves behind.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --create-home app \
    && mkdir -p /data/tables /data/models /data/var /data/objects \
    && chown -R app /data
COPY --from=packages /opt/venv /opt/venv
COPY . /srv/customer-spend
WORKDIR /srv/customer-spend
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DATA_DIR=/data/tables \
    MODELS_DIR=/data/models \
    VAR_DIR=/data/var \
    OBJECTS_DIR=/data/objects
USER 10001
VOLUME /data
EXPOSE 5000
# Long start period: the first start writes sample tables and learns from them.
HEALTHCHECK --interval=15s --timeout=5s --start-period=300s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('PORT', '5000') + '/health/live', timeout=4)"]
ENTRYPOINT ["tini", "-s", "--"]
# Without REDIS_URL it brings its own queue; tables and models are made on the volume if there are none.
CMD ["python", "run.py", "--host", "0.0.0.0"]
